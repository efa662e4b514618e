"""A real edge app: says what kind of file each file is, with an ONNX model that runs on this device.

    python examples/classify_files.py [FOLDER ...] [--seconds N] [--rate N]

The model is magika's (a small neural network for file types), run offline by onnxruntime. The lines with `telemetry`
are all that xybridd asks of an app: latencies and errors are those of the real inferences.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from magika import Magika

import xybridd

if TYPE_CHECKING:
    from collections.abc import Iterator


def files_below(folders: list[Path]) -> Iterator[Path]:
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or path.is_file():
                yield path


def classify(magika: Magika, model_version: str, telemetry: xybridd.Client, path: Path) -> str:
    """The kind of a file; an OSError when it cannot be read is recorded, and goes on its way."""
    with telemetry.inference("magika", model_version, hardware_used="cpu", execution_target="local"):
        return str(magika.identify_bytes(path.read_bytes()).output.label)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Classify files with a real ONNX model, and record how it goes.")
    parser.add_argument("folders", nargs="*", type=Path, help="default: this Python's own library")
    parser.add_argument("--seconds", type=float, help="stop after so long (default: when all files are done)")
    parser.add_argument("--rate", type=float, default=0, help="files a second (default: as fast as it goes)")
    parser.add_argument("--quiet", action="store_true", help="do not print each file")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    telemetry = xybridd.connect(app="classify-files", labels={"example": "magika"})
    magika = Magika()
    version = magika.get_model_name()
    folders = given.folders or [Path(sysconfig.get_paths()["stdlib"])]
    stop_at = time.monotonic() + given.seconds if given.seconds else None
    with tempfile.TemporaryDirectory() as made:
        # A link to nothing: whoever runs this, even root, cannot read it.
        unreadable = Path(made) / "unreadable"
        unreadable.symlink_to(Path(made) / "nothing")
        sweep = itertools.chain([unreadable], files_below(folders))
        for path in itertools.chain.from_iterable(itertools.repeat(list(sweep))) if stop_at else sweep:
            if stop_at is not None and time.monotonic() >= stop_at:
                break
            try:
                kind = classify(magika, version, telemetry, path)
            except OSError as error:
                kind = f"cannot be read ({error.strerror})"
            if not given.quiet:
                print(f"{kind:24} {path}")
            if given.rate:
                time.sleep(1 / given.rate)
    if not telemetry.close(timeout_s=2):
        print("the telemetry daemon did not answer in time", file=sys.stderr)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
