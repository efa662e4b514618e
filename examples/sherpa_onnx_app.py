"""What sherpa-onnx hears, recorded with one line.

pip install sherpa-onnx
python examples/sherpa_onnx_app.py MODEL.onnx TOKENS.txt AUDIO.wav

For a model of the kind tdnn (the smallest there is: it knows yes and no); for others see sherpa-onnx's `from_…`.
"""

from __future__ import annotations

import array
import importlib.util
import sys
import wave

import xybridd


def main() -> None:
    if importlib.util.find_spec("sherpa_onnx") is None:
        sys.exit("sherpa_onnx is not installed here: pip install sherpa-onnx")
    if len(sys.argv) != 4:
        sys.exit(
            "which model? python examples/sherpa_onnx_app.py MODEL.onnx TOKENS.txt AUDIO.wav (16 bits, one channel)"
        )
    model, tokens, path = sys.argv[1:]
    library = importlib.import_module("sherpa_onnx")
    telemetry = xybridd.connect(app="sherpa-onnx-app")
    xybridd.instrument("sherpa_onnx", telemetry)
    recognizer = library.OfflineRecognizer.from_tdnn_ctc(model=model, tokens=tokens)
    stream = recognizer.create_stream()
    with wave.open(path) as audio:
        samples = array.array("h", audio.readframes(audio.getnframes()))
        stream.accept_waveform(audio.getframerate(), [sample / 32768 for sample in samples])
    recognizer.decode_stream(stream)
    print(stream.result.text)
    if not telemetry.close(timeout_s=2):
        print("the telemetry daemon did not answer in time", file=sys.stderr)


if __name__ == "__main__":
    main()
