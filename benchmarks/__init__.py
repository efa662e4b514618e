"""What xybridd costs, measured beside what it could cost at best.

`__main__` runs the benchmarks and prints one table. Each benchmark is a module with one function, `measure`, that
takes a `Bench` and returns rows; `__main__.BENCHMARKS` names them all. `rows` says what a row is, `bench` is what they
share: real daemons in folders of their own, raw frames, and what the kernel says of a process. `floors` are the bare
things that stand beside our figures: a plain fsync, an echo over a socket, plain SQLite.

A figure and its floor always come from the same run, since the machine of the next run may be busier. Nothing here
fails when it is slow: a time limit in a test would measure the machine.
"""
