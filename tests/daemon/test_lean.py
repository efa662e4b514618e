from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support import Daemon


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


LEAN = "from xybridd.daemon.lean import import_asyncio_without_ssl; import_asyncio_without_ssl();"


def test_asyncio_runs_without_ssl_and_ssl_is_there_for_who_wants_it() -> None:
    said = run(
        f"{LEAN} import asyncio, sys; print('ssl' in sys.modules, asyncio.run(asyncio.sleep(0, 7)), end=' ');"
        " import ssl; print(bool(ssl.create_default_context()))"
    )
    assert said == "False 7 True"


def test_what_is_imported_already_is_left_alone() -> None:
    assert run(f"import ssl, sys; {LEAN} print(sys.modules['ssl'] is ssl)") == "True"
    assert run(f"import asyncio, sys; {LEAN} print('ssl' in sys.modules)") == "True"


def test_the_daemon_has_no_tls_in_its_memory(daemon: Daemon) -> None:
    daemon.status()
    maps = Path(f"/proc/{daemon.pid}/maps")
    assert not maps.exists() or "libssl" not in maps.read_text()
