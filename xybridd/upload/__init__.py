"""Everything between "here is one batch" and "this came of it": one attempt, no retry.

A `xybridd.core.delivery.Job` becomes a request in the file of its sink (`xybrid`, `otlp`), a pure function: the same
job gives the same bytes, today and after a restart. `http` carries a request out; the sink says what its answer means.
The sink `file` writes instead. What came of it is an `Outcome`, and an outcome is all that ever comes out: whoever
decides about retries stands above (`xybridd.services`).

All of that happens in the *sender* (`sender`), a process of its own that is given one job at a time on its standard
input and answers with one outcome: requests, urllib3, OpenSSL and protobuf are in its memory, not in the daemon's, and
a look-up of a name that hangs, which no time limit reaches from inside, is killed. The daemon's side of it is
`process`, which knows asyncio and pipes and nothing of HTTP.

    daemon: process.Sender ── frames ──▶ sender ──▶ sink: Job → Request ──▶ http ──▶ sink: Answer → Outcome
"""
