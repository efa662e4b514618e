"""A receiver to test against: for our own tests, and for yours.

Where exports will go one day there may be nothing yet, or something that must not be filled with trials. `Receiver`
starts a small server in a process of its own that speaks the ingest format (``/v1/events/batch``) and OTLP metrics
(``/v1/metrics``), remembers what it got, by its own count, and can be told to misbehave in the ways that networks,
proxies and servers do:

    from xybridd.testing import Behaviour, Receiver

    with Receiver(key="secret") as receiver:
        receiver.misbehave(Behaviour("status", status=503, retry_after="2"), Behaviour("reset_after"))
        ...                                   # a daemon with upload.endpoint = receiver.url
        assert receiver.counts() == {("session-id", 1): 1}

At a desk the same is ``xybridd receive --port 8080``. `behaviours` is the table of misbehaviours, `inbox` what is
remembered and how the format is checked (both compute only), `receiver` the server, `controller` the class above.
Nothing of the daemon imports this package.
"""

from xybridd.testing.behaviours import Behaviour
from xybridd.testing.controller import Receiver

__all__ = ["Behaviour", "Receiver"]
