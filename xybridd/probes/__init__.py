"""Readings of the device: one module for each quantity.

A probe takes nothing for granted: it returns `Reading`s with a confidence and a source, and what it cannot tell is
unknown, never guessed. Reading blocks, so probes run on a thread; none runs on the event loop. GPU, NPU, battery and
thermal state have no probe yet and are reported as unknown.
"""
