"""The examples, and what the README shows, run as shown."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import wave
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integrations import test_llama_cpp, tiny_tdnn, tiny_whisper
from tests.support import PATIENCE_S, until

if TYPE_CHECKING:
    from tests.support import Daemon

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def test_the_real_app_records_real_inferences_and_a_real_error(daemon: Daemon, folder: Path) -> None:
    pytest.importorskip("magika", reason="the extra `examples` is not installed")
    kinds = {
        "a.py": "import os\n\nprint(os.getcwd())\n" * 20,
        "b.json": json.dumps({"names": ["one", "two"], "numbers": {str(n): n for n in range(50)}}, indent=2),
    }
    shown = folder / "files"
    shown.mkdir()
    for name, text in kinds.items():
        (shown / name).write_text(text)
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "classify_files.py"), str(shown)],
        env=daemon.env,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^python .*a\.py$", done.stdout, re.MULTILINE)
    assert re.search(r"^json .*b\.json$", done.stdout, re.MULTILINE)
    found = json.loads(daemon.xybridd("sessions", "show", "--app", "classify-files", "--json").stdout)
    assert found["total_inferences"] == 2
    assert found["error_count"] == 1
    assert "FileNotFoundError" in found["errors"][0]["message"]
    (model,) = found["extensions"]["models"].values()
    assert 0 < model["latency_ms"]["p50"] < 60_000
    assert found["extensions"]["end_reason"] == "ended"


def test_the_three_lines_of_the_readme(daemon: Daemon) -> None:
    (first,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "import xybridd" in block]
    assert len([line for line in first.splitlines() if line.strip()]) == 3

    def kept() -> dict[str, int] | None:
        # What an app records in its last quarter of a second may be lost on a busy machine; the README says so.
        subprocess.run([sys.executable, "-c", first], env=daemon.env, check=True, timeout=PATIENCE_S)
        shown = json.loads(daemon.xybridd("sessions", "show", "--app", "kiosk", "--json").stdout)
        by_model: dict[str, dict[str, int]] = shown["by_model"]
        return by_model.get("whisper-tiny@1.0")

    assert until(kept, "the record of the three lines")["total_latency_ms"] == 212


@pytest.mark.skipif(shutil.which("nc") is None, reason="nc is not installed (Debian: netcat-openbsd)")
def test_the_line_for_nc_of_the_readme(daemon: Daemon) -> None:
    match = re.search(r"\$ (echo '\{.*?\}' \|\s+nc .*?)\n", README, re.DOTALL)
    assert match
    done = subprocess.run(
        ["sh", "-c", match[1]], env=daemon.env, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    session_id = json.loads(done.stdout)["result"]["session_id"]
    found = json.loads(daemon.xybridd("sessions", "show", session_id, "--json").stdout)
    assert found["total_inferences"] == 1
    assert found["extensions"]["app"] == "nc"


def test_the_exchange_of_the_protocol_document(daemon: Daemon) -> None:
    text = (ROOT / "docs" / "protocol.md").read_text("utf-8")
    lines = [json.loads(line) for line in re.findall(r'^    (\{"jsonrpc".*\})$', text, re.MULTILINE)]
    requests = [line for line in lines if "method" in line]
    answers = {line["id"]: line["result"] for line in lines if "result" in line}
    assert len(requests) == 3
    with daemon.wire() as wire:
        for request in requests:
            wire.send_line(json.dumps(request).encode())
            answer = wire.read()
            assert answer["result"].keys() == answers[request["id"]].keys()
    assert answer["result"]["last_seq"] == 1


@pytest.mark.parametrize(
    ("library", "example", "inferences", "errors"),
    [
        ("onnxruntime", "onnxruntime_app", 10, 1),
        ("openai", "openai_server", 1, 0),
        ("transformers", "transformers_app", 10, 1),
    ],
)
def test_the_examples_with_one_line_record(
    daemon: Daemon, library: str, example: str, inferences: int, errors: int
) -> None:
    needed = ("torch", library) if library == "transformers" else (library,)
    for each in needed:
        if importlib.util.find_spec(each) is None:
            pytest.skip(f"{each} is not installed")
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{example}.py")],
        env=daemon.env,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    app = example.replace("_", "-")
    found = json.loads(daemon.xybridd("sessions", "show", "--app", app, "--json").stdout)
    assert (found["total_inferences"], found["error_count"]) == (inferences, errors)


@pytest.mark.parametrize("library", ["faster_whisper", "llama_cpp", "sherpa_onnx"])
def test_the_examples_that_are_given_a_model_record(daemon: Daemon, folder: Path, library: str) -> None:
    pytest.importorskip(library, reason=f"{library} is not installed")
    place, heard = folder / "tiny", folder / "silence.wav"
    if library == "faster_whisper":
        tiny_whisper.write_model(place)
        given = [place, heard]
    elif library == "llama_cpp":
        test_llama_cpp.write_model(folder / "tiny.gguf")
        given = [folder / "tiny.gguf"]
    else:
        tiny_tdnn.write_model(place)
        given = [place / "model.onnx", place / "tokens.txt", heard]
    with wave.open(str(heard), "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(16_000)
        audio.writeframes(bytes(2 * 16_000))
    name = library.replace("_", "-") + "-app"
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{library}_app.py"), *map(str, given)],
        env=daemon.env,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(daemon.xybridd("sessions", "show", "--app", name, "--json").stdout)
    assert found["total_inferences"] == 1
    assert list(found["by_model"]) == ["tiny@"]
