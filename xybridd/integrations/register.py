"""The table of what can be instrumented, and the two calls of the user."""

from __future__ import annotations

import importlib
import importlib.util
import threading
from typing import TYPE_CHECKING

from xybridd.client.client import connect
from xybridd.integrations.wrapping import Watch

if TYPE_CHECKING:
    from xybridd.client.client import Client

#: The library as it is imported, and how it is installed. Each has a module of the same name here, whose
#: ``put(watch)`` wraps what is to be wrapped.
INTEGRATIONS: tuple[tuple[str, str], ...] = (
    ("faster_whisper", "faster-whisper"),
    ("llama_cpp", "llama-cpp-python"),
    ("onnxruntime", "onnxruntime"),
    ("openai", "openai"),
    ("sherpa_onnx", "sherpa-onnx"),
    ("transformers", "transformers"),
)

_lock = threading.RLock()
_watches: dict[str, Watch] = {}
_shared: list[Client] = []


def instrument(name: str, client: Client | None = None) -> None:
    """Record what a library runs from now on; nothing when that is done already.

    Raises ValueError for a name that is not in the table, ImportError when the library is not installed here.
    """
    install = _installed_as(name)
    with _lock:
        if name in _watches:
            return
        if importlib.util.find_spec(name) is None:
            raise ImportError(f"{name} cannot be instrumented, it is not installed here (pip install {install})")
        watch = Watch(name, _shared_client if client is None else lambda: client)
        try:
            importlib.import_module(f"xybridd.integrations.{name}").put(watch)
        except BaseException:
            watch.undo()
            raise
        _watches[name] = watch


def uninstrument(name: str) -> None:
    """Put back what `instrument` found; nothing when it was not called. Raises ValueError for an unknown name."""
    _installed_as(name)
    with _lock:
        watch = _watches.pop(name, None)
        if watch is not None:
            watch.undo()


def _installed_as(name: str) -> str:
    for known, install in INTEGRATIONS:
        if name == known:
            return install
    names = ", ".join(known for known, _ in INTEGRATIONS)
    raise ValueError(f"{name!r} is nothing that xybridd can instrument; it can: {names}")


def _shared_client() -> Client:
    """The one client of everything instrumented without a client, connected with the first call that is recorded."""
    with _lock:
        if not _shared:
            _shared.append(connect())
        return _shared[0]
