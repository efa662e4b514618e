"""What a disk does to us: the power fails, bits flip, files are cut, there is no space; and random lives with crashes.

`tracing` records what a run asks of the disk, `disk` rebuilds what the disk may hold when the power fails then, `lives`
are the runs, `after` looks at what is there when it is opened again.
"""
