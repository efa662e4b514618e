"""What llama.cpp makes, recorded with one line.

pip install llama-cpp-python
python examples/llama_cpp_app.py MODEL.gguf [PROMPT]
"""

from __future__ import annotations

import importlib.util
import sys

import xybridd


def main() -> None:
    if importlib.util.find_spec("llama_cpp") is None:
        sys.exit("llama_cpp is not installed here: pip install llama-cpp-python")
    if len(sys.argv) < 2:
        sys.exit("which model? python examples/llama_cpp_app.py MODEL.gguf [PROMPT]")
    library = importlib.import_module("llama_cpp")
    telemetry = xybridd.connect(app="llama-cpp-app")
    xybridd.instrument("llama_cpp", telemetry)
    llama = library.Llama(sys.argv[1], verbose=False)
    for piece in llama.create_completion(" ".join(sys.argv[2:]) or "Once", max_tokens=32, stream=True):
        print(piece["choices"][0]["text"], end="", flush=True)
    print()
    llama.close()
    telemetry.close(timeout_s=2)


if __name__ == "__main__":
    main()
