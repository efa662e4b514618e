"""Every run of an ONNX model, recorded with one line.

    pip install "xybridd[examples]"
    python examples/onnxruntime_app.py

The model is one that onnxruntime ships; nothing is downloaded.
"""

from __future__ import annotations

import sys
from pathlib import Path

import xybridd

try:
    import numpy as np
    import onnxruntime
except ImportError as error:
    sys.exit(f"{error.name} is not installed here: pip install 'xybridd[examples]'")


def main() -> None:
    telemetry = xybridd.connect(app="onnxruntime-app")
    xybridd.instrument("onnxruntime", telemetry)
    path = Path(onnxruntime.__file__).parent / "datasets" / "sigmoid.onnx"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    numbers = np.linspace(-1, 1, 60, dtype=np.float32).reshape(3, 4, 5)
    for _ in range(10):
        (answer,) = session.run(None, {"x": numbers})
    print(f"10 runs, the last mean is {answer.mean():.3f}")
    try:
        session.run(None, {"wrong": numbers})
    except ValueError as error:
        print(f"and one that fails: {error}")
    if not telemetry.close(timeout_s=2):
        print("the telemetry daemon did not answer in time", file=sys.stderr)


if __name__ == "__main__":
    main()
