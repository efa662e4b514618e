"""The process: it listens, hands requests to services, keeps its jobs, starts and ends in order.

`app` is the composition root: it builds everything, once, and drains it again. `server` moves bytes between sockets
and the protocol; `handlers` is one table from method to service; `scheduler` has every periodic job; `lifecycle` is
what the operating system asks of a daemon: signals, notifications, limits, identity.
"""
