"""What an app asks of a local server that speaks the API of openai (ollama, llama.cpp, vLLM), recorded with one line.

    pip install openai
    python examples/openai_server.py [BASE_URL MODEL]

Without an address it asks a small server of its own, on loopback, that counts; nothing leaves this machine.
"""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import xybridd

try:
    import openai
except ImportError:
    sys.exit("openai is not installed here: pip install openai")


class Counting(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for word in ("one", " two", " three"):
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            piece = {
                "id": "1",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": "counting",
                "choices": [choice],
            }
            self.wfile.write(b"data: " + json.dumps(piece).encode() + b"\n\n")
        self.wfile.write(b"data: [DONE]\n\n")


def ask(base_url: str, model: str) -> None:
    telemetry = xybridd.connect(app="openai-server")
    xybridd.instrument("openai", telemetry)
    with openai.OpenAI(base_url=base_url, api_key="none") as api:
        for piece in api.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Count to three."}], stream=True
        ):
            if piece.choices:
                print(piece.choices[0].delta.content or "", end="", flush=True)
    print()
    if not telemetry.close(timeout_s=2):
        print("the telemetry daemon did not answer in time", file=sys.stderr)


def main() -> None:
    if len(sys.argv) == 3:
        ask(*sys.argv[1:])
        return
    server = ThreadingHTTPServer(("127.0.0.1", 0), Counting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ask(f"http://127.0.0.1:{server.server_port}/v1", "counting")
    server.shutdown()


if __name__ == "__main__":
    main()
