"""What ``xybridd doctor`` looks at, a file for each group: it gathers facts, `xybridd.core.health` judges them.

`register.py` has them all, in the order in which they are shown. A gatherer may hang or fail: it is left behind after a
few seconds, and that is what is told then.
"""
