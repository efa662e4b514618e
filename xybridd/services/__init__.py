"""The use cases: what happens to a record, to a session, to the device's state, over time.

`recorder` is the only one that changes sessions, and `sessions` finds them for it; `committer` brings to disk what is
`pending`, many changes in one transaction; `sampler` knows the device; `retention` lets go of what is old. They wait
for storage and probes, which do their I/O on threads; they know nothing of sockets, and time comes from a `Clock`.
"""
