"""The only place that knows SQLite.

`lock` keeps a second daemon out; `opening` opens the file whatever state it is in, `database` connects and migrates;
`rows` turns values of `xybridd.core.changes` into statements and back; `store` is the face of it all: awaitable
methods, one transaction each. A write that returns is on disk (WAL, ``synchronous=FULL``).

I/O happens on a thread of the store's; the event loop only waits for its answers.
"""
