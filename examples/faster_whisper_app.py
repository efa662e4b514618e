"""What Whisper hears, recorded with one line.

pip install faster-whisper
python examples/faster_whisper_app.py MODEL AUDIO
"""

from __future__ import annotations

import importlib.util
import sys

import xybridd


def main() -> None:
    if importlib.util.find_spec("faster_whisper") is None:
        sys.exit("faster_whisper is not installed here: pip install faster-whisper")
    if len(sys.argv) < 3:
        sys.exit("which model, and what to hear? python examples/faster_whisper_app.py MODEL AUDIO")
    library = importlib.import_module("faster_whisper")
    telemetry = xybridd.connect(app="faster-whisper-app")
    xybridd.instrument("faster_whisper", telemetry)
    whisper = library.WhisperModel(sys.argv[1], local_files_only=True)
    segments, _ = whisper.transcribe(sys.argv[2], beam_size=1, temperature=0)  # as quick as it gets
    for segment in segments:
        print(f"{segment.start:6.1f} s {segment.text}", flush=True)
    if not telemetry.close(timeout_s=2):
        print("the telemetry daemon did not answer in time", file=sys.stderr)


if __name__ == "__main__":
    main()
