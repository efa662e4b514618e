"""What Prometheus sees of a real daemon: scraped over HTTP, judged by the official parser and by promtool."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.daemon.scenes import batch, producer
from tests.support import inference, until
from xybridd.core.histogram import Histogram
from xybridd.daemon.exposition import buckets

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import Metric

    from tests.support import Daemon

LISTEN = '[metrics]\nlisten = "127.0.0.1:0"\n'

HOSTILE = 'a"b\\c\nd{e="f"} 1\n# HELP x'


def url(daemon: Daemon) -> str:
    found = until(lambda: re.search(r"metrics: (http://\S+)", daemon.said()), "the address of the metrics")
    return str(found[1])


def page(daemon: Daemon) -> str:
    answer = requests.get(url(daemon), timeout=30)
    assert answer.status_code == 200
    return answer.text


def families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(text: str, sample: str) -> dict[tuple[str, ...], float]:
    """Of one name: the values by those of its labels, in the order of the labels' names."""
    return {
        tuple(value for _, value in sorted(each.labels.items())): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
        if each.name == sample
    }


def check_by_promtool(text: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not there (Debian's package prometheus)")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text.encode(), capture_output=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def record(daemon: Daemon, app: str = "kiosk") -> None:
    wire, _ = producer(daemon, app)
    stats = {
        "tokens_per_second": 20.0, "input_tokens": 3, "output_tokens": 5, "execution_target": "local",
        "hardware_used": "gpu", "time_to_first_token_ms": 4.0,
    }  # fmt: skip
    records = [inference("whisper", latency_ms=latency, stats=stats) for latency in (0.25, 3.0, 4.0, 5.0, 90_000.0)]
    records.append({"type": "error", "error": "CUDA error", "model_id": "whisper"})
    wire.call("record.batch", seq=1, records=records, flush=True)
    wire.call("session.end")
    wire.close()


def test_what_was_recorded_is_scraped_under_the_names_of_the_conventions(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(LISTEN).start()
    record(daemon)
    text = page(daemon)
    count = values(text, "gen_ai_client_operation_duration_seconds_count")
    assert list(count.values()) == [5]
    (labels,) = count
    assert {"whisper", "kiosk", "gpu"} <= set(labels)
    within = {
        float(each.labels["le"]): each.value
        for each in families(text)["gen_ai_client_operation_duration_seconds"].samples
        if each.name.endswith("_bucket")
    }
    assert within[0.0005] == 1
    assert within[0.002] == 1
    assert within[0.004] == 3, "4 ms is not above 4 ms"
    assert within[0.008] == 4
    assert within[65.536] == 4
    assert within[float("inf")] == 5
    assert list(values(text, "gen_ai_client_operation_duration_seconds_sum").values()) == [pytest.approx(90.01225)]
    assert values(text, "xybrid_inference_errors_total") == {("hardware", "whisper", "kiosk"): 1}
    assert sorted(values(text, "gen_ai_client_token_usage_sum").values()) == [15, 25]
    assert sum(values(text, "xybrid_inference_calls_total").values()) == 5
    assert values(text, "xybridd_sessions_ended_total") == {("ended", "kiosk"): 1}
    assert values(text, "xybridd_records_received_total") == {(): 6}
    assert values(text, "xybridd_up") == {(): 1}
    check_by_promtool(text)


def test_counters_only_grow_while_minutes_close_and_sessions_end(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(LISTEN).start()
    wire, _ = producer(daemon, "kiosk")
    before: dict[str, float] = defaultdict(float)
    for seq in range(1, 12):
        batch(wire, seq, 10)
        if seq % 3 == 0:
            wire.call("session.reset")  # closes its minute
        now = {
            name: sum(values(text, name).values())
            for text in [page(daemon)]
            for name in ("gen_ai_client_operation_duration_seconds_count", "xybrid_inference_calls_total")
        }
        assert all(now[name] == seq * 10 >= before[name] for name in now)
        before.update(now)
    wire.close()


def test_names_that_an_app_made_up_cannot_break_the_page_and_are_bounded(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(LISTEN + "max_models = 5\n").start()
    wire, _ = producer(daemon, HOSTILE)
    records = [inference(HOSTILE), *(inference(f"m{number}") for number in range(50))]
    records += [{"type": "error", "error": HOSTILE, "model_id": f"m{number}"} for number in range(50)]
    wire.call("record.batch", seq=1, records=records, flush=True)
    text = page(daemon)
    count = values(text, "gen_ai_client_operation_duration_seconds_count")
    assert sum(count.values()) == 51
    assert len(count) == 6
    assert any(HOSTILE in labels for labels in count)
    assert sum(values(text, "xybrid_inference_errors_total").values()) == 50
    assert len(values(text, "xybrid_inference_errors_total")) <= 5 + 8
    check_by_promtool(text)
    wire.close()


def test_nothing_listens_unless_it_is_asked_for(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    proc = Path(f"/proc/{daemon.pid}")
    lines = [line.split() for name in ("tcp", "tcp6") for line in (proc / "net" / name).read_text().splitlines()[1:]]
    inodes = {fields[9] for fields in lines if fields[3] == "0A"}
    opened = {link.readlink().name for link in (proc / "fd").iterdir() if link.is_symlink()}
    assert not {f"socket:[{inode}]" for inode in inodes} & opened


def test_a_port_that_is_taken_stops_nothing_else(make_daemon: Callable[..., Daemon]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        daemon = make_daemon(f'[metrics]\nlisten = "127.0.0.1:{taken.getsockname()[1]}"\n').start()
        until(lambda: "cannot listen there" in daemon.said(), "a word about it")
        record(daemon)
    assert daemon.stop() == 0


def test_those_who_connect_and_say_nothing_hold_up_nobody(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(LISTEN).start()
    host, _, port = url(daemon).removeprefix("http://").removesuffix("/metrics").partition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(5)]
    assert "xybridd_up 1.0" in page(daemon)
    rest = [socket.create_connection((host, int(port))) for _ in range(40)]
    record(daemon)  # the daemon itself does not notice
    for each in (*silent, *rest):
        each.close()
    until(lambda: answers(daemon), "it to be scraped again")
    assert daemon.stop() == 0


def answers(daemon: Daemon) -> bool:
    try:
        return "xybridd_up 1.0" in page(daemon)
    except requests.RequestException:
        return False


def test_a_file_for_node_exporter_is_whole_and_readable(make_daemon: Callable[..., Daemon], folder: Path) -> None:
    file = folder / "xybridd.prom"
    daemon = make_daemon(f'[metrics]\ntextfile = "{file}"\n').start()
    until(file.exists, "the file")
    text = file.read_text()
    assert values(text, "xybridd_up") == {(): 1}
    assert file.stat().st_mode & 0o777 == 0o644
    assert [each.name for each in folder.iterdir() if each.is_file()] == [file.name]
    check_by_promtool(text)
    assert daemon.stop() == 0


def test_a_folder_that_is_not_there_is_said_and_stops_nothing(make_daemon: Callable[..., Daemon], folder: Path) -> None:
    daemon = make_daemon(f'[metrics]\ntextfile = "{folder}/nowhere/x.prom"\n').start()
    until(lambda: "metrics.textfile" in daemon.said(), "a word about it")
    record(daemon)
    assert daemon.stop() == 0


def test_an_edge_counts_what_does_not_exceed_it() -> None:
    found = Histogram()
    found.extend([0.0, 0.5, 0.501, 1.0, 2.0, 2.1, 1e9])
    assert dict(buckets(found)) == {
        "0.0005": 2, "0.001": 4, "0.002": 5,
        **{repr(2.0**power / 1000): 6 for power in range(2, 17)},
        "+Inf": 7,
    }  # fmt: skip
