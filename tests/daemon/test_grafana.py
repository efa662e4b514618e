"""The dashboard that we ship: a real Prometheus scrapes a real daemon and answers every query of it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.daemon.test_metrics import LISTEN, record, url
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support import Daemon

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana-dashboard.json"

#: What this machine has nothing to say about: it may have no battery, no GPU, no NPU, no sensor, and nothing waits.
MAY_BE_EMPTY = ("hw_", "xybrid_npu", "xybrid_thermal", "xybridd_exports")


def queries() -> list[tuple[str, str]]:
    """Each panel's title and query, as Grafana would send it with everything chosen."""
    found = []
    for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"]
            for name, value in (("$__rate_interval", "1m"), ("$__range", "1h"), ("$app", ".*"), ("$model", ".*")):
                query = query.replace(name, value)
            found.append((panel["title"], query.replace("$instance", ".*")))
    return found


@pytest.fixture
def prometheus(make_daemon: Callable[..., Daemon]) -> Iterator[tuple[Daemon, str]]:
    """A daemon and the API of a Prometheus that scrapes it every second."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not there (Debian's package prometheus)")
    daemon = make_daemon(LISTEN).start()
    target = url(daemon).removeprefix("http://").removesuffix("/metrics")
    home = Path(tempfile.mkdtemp(prefix="xyb-prometheus-"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = {"scrape_configs": [{"job_name": "x", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]}]}
    (home / "prometheus.yml").write_text(json.dumps(config))
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={home}/prometheus.yml",
                f"--storage.tsdb.path={home}/data",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield daemon, f"http://{address}/api/v1"
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(home, ignore_errors=True)


def ask(api: str, query: str) -> list[dict[str, Any]]:
    """Raises RequestException, while it starts."""
    answer = requests.get(f"{api}/query", params={"query": query}, timeout=30).json()
    assert answer["status"] == "success", (query, answer)
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def seen(api: str, query: str) -> float:
    try:
        return float(ask(api, query)[0]["value"][1])
    except (requests.RequestException, IndexError):
        return 0.0


def test_each_panel_of_the_dashboard_has_an_answer(prometheus: tuple[Daemon, str]) -> None:
    daemon, api = prometheus
    count = "sum(gen_ai_client_operation_duration_seconds_count)"
    record(daemon)
    until(lambda: seen(api, count) == 5, "the first scrape with calls")
    record(daemon)
    until(lambda: seen(api, count) == 10, "a second one with more")
    until(lambda: seen(api, "count_over_time(xybridd_up[1m])") >= 4, "enough for rates")
    for title, query in queries():
        found = ask(api, query)
        if not any(name in query for name in MAY_BE_EMPTY):
            assert found, f"{title}: {query}"
            assert all(each["value"][1] != "NaN" for each in found), f"{title}: {found}"
    up = ask(api, "up")
    assert [each["value"][1] for each in up] == ["1"]


def test_the_dashboard_is_whole() -> None:
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    assert all(panel["description"] for panel in dashboard["panels"] if panel["type"] != "row")
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]}
    assert len(places) == len(ids)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in dashboard["panels"])
