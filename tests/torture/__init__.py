"""The torture campaign: producers, attackers and a judge, each by itself.

*Producers* (`producer_raw`, `producer_client`) are processes that record, and write into a journal of their own what
they sent and what was acknowledged, before they act on it. *Attacks* (`attacks`, one table of names and weights) kill,
freeze, starve and corrupt the daemon, its disk, its clients and its receiver. The *judge* (`judge`) waits until all is
well again and compares what it finds, by the wire, in the SQLite file and at the receiver, to the journals (`journal`),
never to the daemon's own word: missing = 0, spurious = 0.

`arena` holds what they fight over, `campaign` the legs, `soak` a day compressed into minutes. ``make torture MINUTES=``
is the long version, ``test_torture.py`` the short one.
"""
