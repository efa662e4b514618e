"""``python -m xybridd`` is the command ``xybridd``."""

from xybridd.cli.main import main

main()
