"""Readings of the device: one module for each quantity, each declared as a `Probe` and named in `register`.

A probe takes nothing for granted: it returns `Reading`s with a confidence and a source, and what it cannot tell is
unknown, never guessed; *absent* is an answer of its own. It reads through a `Tree`, so a recorded tree replays as it
is, and a pure ``parse_…`` stands beside each thin ``read_…``. Reading blocks, so probes run on a thread; none runs on
the event loop.
"""
