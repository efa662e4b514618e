"""xybridd as a service: what is written where, which commands are run, and what stands there now.

``shipped`` reads the unit files and plists that we ship, and puts the command's path into them. ``observed`` looks at
the machine once and returns `Facts`. ``systemd`` and ``launchd`` make a `Plan` of facts: steps as values, which is what
``--dry-run`` prints and what tests compare. ``carry_out`` alone changes anything.
"""
