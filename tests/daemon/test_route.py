"""A change of route wakes the upload by the kernel's word, in a network namespace of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def namespaces() -> bool:
    """Whether this machine lets us have one, with a device in it."""
    if not (shutil.which("ip") and shutil.which("unshare")):
        return False
    tried = ["unshare", "--net", "ip", "link", "add", "near", "type", "veth", "peer", "name", "far"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not namespaces(), reason="no network namespace with a veth device can be made here")
def test_a_route_that_appears_sends_what_waited(folder: Path) -> None:
    scene = subprocess.run(
        ["unshare", "--net", sys.executable, "-m", "tests.daemon.route_scene", str(folder)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert scene.returncode == 0, scene.stderr
    assert json.loads(scene.stdout) == {"reason": "there is no route to anywhere", "requests_before": 0}
