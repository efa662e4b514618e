"""The command ``xybridd``: one file for each group of commands.

A command talks to the daemon over its socket like any client; `run` alone imports the daemon. What people look at is
drawn with rich, which is imported by the command that draws; what programs read comes with ``--json``.
"""
