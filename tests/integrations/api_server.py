"""A server on loopback that speaks the API of openai; what it answers is named by the model it is asked for."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

WORDS = ("One", " two", " three", " four")
USAGE = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}


def _choice(path: str, word: str, *, streamed: bool) -> dict[str, Any]:
    if path.endswith("/chat/completions"):
        said = {"role": "assistant", "content": word}
        return {"index": 0, "finish_reason": None if streamed else "stop", "delta" if streamed else "message": said}
    return {"index": 0, "finish_reason": None if streamed else "stop", "text": word}


def _whole(path: str, asked: dict[str, Any]) -> dict[str, Any]:
    if path.endswith("/embeddings"):
        vector = {"object": "embedding", "index": 0, "embedding": [0.25, 0.5]}
        usage = {"prompt_tokens": 3, "total_tokens": 3}
        return {"object": "list", "model": asked["model"], "data": [vector], "usage": usage}
    kind = "chat.completion" if "chat" in path else "text_completion"
    answer = {"id": "a", "object": kind, "created": 1, "model": asked["model"]}
    answer["choices"] = [_choice(path, "".join(WORDS), streamed=False)]
    return answer if asked["model"] == "no-usage" else {**answer, "usage": USAGE}


def _pieces(path: str, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    kind = "chat.completion.chunk" if "chat" in path else "text_completion"
    head = {"id": "a", "object": kind, "created": 1, "model": asked["model"]}
    yield {**head, "choices": [_choice(path, "", streamed=True)]}
    for word in WORDS:
        yield {**head, "choices": [_choice(path, word, streamed=True)]}
    if asked["model"] == "breaks":
        yield {"error": {"message": "the model ran out of memory"}}
    if (asked.get("stream_options") or {}).get("include_usage"):
        yield {**head, "choices": [], "usage": USAGE}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked["model"].startswith("fails-"):
            status = int(asked["model"].removeprefix("fails-"))
            self._answer(status, {"error": {"message": "not this time", "type": "refusal"}})
        elif asked.get("stream"):
            self._stream(asked)
        else:
            self._answer(200, _whole(self.path, asked))

    def _answer(self, status: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, asked: dict[str, Any]) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for piece in _pieces(self.path, asked):
            self.wfile.write(b"data: " + json.dumps(piece).encode() + b"\n\n")
        self.wfile.write(b"data: [DONE]\n\n")


class ApiServer:
    def __enter__(self) -> str:
        """The address for ``base_url``."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
