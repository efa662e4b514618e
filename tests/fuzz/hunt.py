"""Look for bytes that a target does not bear: ``python -m tests.fuzz.hunt TARGET SECONDS [FOLDER]``.

What reaches new code is added to FOLDER (a scratch one unless named), what is not borne is written to ``crash-…`` in the
current folder, and the exit code says whether there was any. Needs the extra ``fuzz``.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["xybridd"]):
    from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).with_name("corpus")


def main() -> None:
    logging.getLogger("xybridd").setLevel(logging.CRITICAL)
    name, seconds, *kept = sys.argv[1:]
    folder = kept[0] if kept else tempfile.mkdtemp(prefix=f"fuzz-{name}-")
    options = [f"-max_total_time={seconds}", "-max_len=4096", "-timeout=20", "-rss_limit_mb=2048", "-verbosity=0"]
    options += ["-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, folder, str(CORPUS / name)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
