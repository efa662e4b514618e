"""What a release is installed with has everything that the package asks for, each with its hashes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKED_EXTRAS = ("metrics", "network", "nvidia")


def test_each_dependency_is_pinned_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = project["dependencies"] + [
        each for name in LOCKED_EXTRAS for each in project["optional-dependencies"][name]
    ]
    names = {re.split(r"[^A-Za-z0-9._-]", each)[0].lower().replace("_", "-") for each in asked}
    lock = (ROOT / ".ci" / "requirements.lock").read_text("utf-8")
    pinned = dict(
        re.findall(r"^([a-z0-9._-]+)==[^\n]*\\\n((?:    --hash=sha256:[0-9a-f]{64}[^\n]*\n)+)", lock, re.MULTILINE)
    )
    assert names <= set(pinned), f"make lock: {sorted(names - set(pinned))}"
