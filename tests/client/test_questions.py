"""What an app may ask, in a thread and in an event loop, and sessions that processes share."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import uuid
from typing import TYPE_CHECKING, Any

import pytest

import xybridd
from tests.support import PATIENCE_S, until

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from tests.support import Daemon


def session(daemon: Daemon, session_id: str | None) -> Any:
    with daemon.wire() as wire:
        return wire.call("session.get", session_id=session_id)


def test_advice_is_asked_beside_the_records(daemon: Daemon) -> None:
    with xybridd.connect(app="a", socket=daemon.socket) as client:
        client.record_inference("m", "1", 1)
        advice = client.advice(model_size_mb=1, timeout_s=PATIENCE_S)
        assert advice is not None
        assert advice["prefer"] in {"npu", "gpu", "cpu"}
        assert advice["can_load_model"] is True
        assert client.advice(model_size_mb=-1, timeout_s=PATIENCE_S) is None  # refused, and nothing is raised


def test_without_a_daemon_there_is_no_advice(folder: Path) -> None:
    with xybridd.connect(app="a", socket=folder / "nobody") as client:
        assert client.advice(timeout_s=0.05) is None


def test_who_watches_is_told_at_once_and_again_after_a_restart(daemon: Daemon) -> None:
    told: list[dict[str, Any]] = []
    with xybridd.connect(app="a", socket=daemon.socket) as client:
        end = client.watch(told.append)
        until(lambda: told, "to be told")
        assert set(told[0]) == {"capabilities", "advice"}
        late: list[dict[str, Any]] = []
        client.watch(late.append)
        until(lambda: late, "the second one to be told what is known")
        assert late[0] in told
        before = len(told)
        daemon.kill()
        daemon.start()
        until(lambda: len(told) > before, "to be told again by the next daemon")
        end()
        end()
        still, ended = len(late), len(told)
        daemon.kill()
        daemon.start()
        until(lambda: len(late) > still, "who still watches to be told")
        assert len(told) == ended


def test_a_callback_that_fails_is_said_once_and_harms_nothing(daemon: Daemon, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_now: dict[str, Any]) -> None:
        raise ValueError("of the app")

    told: list[Any] = []
    with xybridd.connect(app="a", socket=daemon.socket) as client:
        for _ in range(3):
            client.watch(broken)
        client.watch(told.append)
        until(lambda: told, "the one that works to be told")
        client.record_inference("m", "1", 1)
        assert client.flush(PATIENCE_S)
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def _runners() -> list[Any]:
    import uvloop  # noqa: PLC0415 - a peer of asyncio's loop, in tests only

    return [asyncio.run, uvloop.run]


@pytest.mark.parametrize("run", _runners(), ids=["asyncio", "uvloop"])
def test_an_event_loop_asks_and_is_not_held_up(
    daemon: Daemon, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    async def app() -> None:
        client = xybridd.connect(app="loop", socket=daemon.socket)
        session_id = client.session_id
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        ticking = asyncio.create_task(tick())
        for _ in range(100):
            client.record_inference("m", "1", 1)
        assert await client.aio.flush(PATIENCE_S)
        advice, again = await asyncio.gather(
            client.aio.advice(timeout_s=PATIENCE_S), client.aio.advice(timeout_s=PATIENCE_S)
        )
        assert advice is not None
        assert again is not None
        export = await client.aio.end_session(PATIENCE_S)
        assert export is not None
        assert session(daemon, session_id)["total_inferences"] == 100
        assert await client.aio.close(PATIENCE_S)
        ticking.cancel()
        assert ticks > 10

    run(app())


def test_an_event_loop_without_a_daemon_gets_none(folder: Path) -> None:
    async def app() -> None:
        client = xybridd.connect(app="loop", socket=folder / "nobody")
        assert await client.aio.advice(timeout_s=0.02) is None
        assert not await client.aio.flush(0.02)
        assert await client.aio.end_session(0.02) is None
        client.record_inference("m", "1", 1)
        assert not await client.aio.close(0.02)
        assert client.counters()["spooled"] == 1

    asyncio.run(app())


def test_who_gives_up_waiting_hears_nothing_more(daemon: Daemon) -> None:
    async def app() -> None:
        client = xybridd.connect(app="loop", socket=daemon.socket)
        task = asyncio.create_task(client.aio.advice(timeout_s=PATIENCE_S))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await client.aio.flush(PATIENCE_S)
        await client.aio.close(PATIENCE_S)

    asyncio.run(app())


def _take_part(path: str, session_id: str) -> None:
    with xybridd.connect(app="worker", socket=path, session_id=session_id) as client:
        for _ in range(10):
            client.record_inference("shared", "1", 1)


def test_processes_share_a_session_by_its_id(daemon: Daemon) -> None:
    with xybridd.connect(app="main", socket=daemon.socket) as client:
        assert client.flush(PATIENCE_S)
        context = multiprocessing.get_context("spawn")
        workers = [context.Process(target=_take_part, args=(str(daemon.socket), client.session_id)) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(PATIENCE_S)
            assert worker.exitcode == 0
        found = session(daemon, client.session_id)
        assert found["total_inferences"] == 20
        assert found["ended_at"] is None
        session_id = client.session_id
    assert session(daemon, session_id)["extensions"]["end_reason"] == "ended"


def test_a_session_that_cannot_be_joined_is_replaced_and_said(daemon: Daemon, caplog: pytest.LogCaptureFixture) -> None:
    with xybridd.connect(app="first", socket=daemon.socket) as first:
        first.record_inference("m", "1", 1)
        assert first.flush(PATIENCE_S)
        gone = first.session_id
    for wrong in (gone, "no-uuid", str(uuid.UUID(int=0))[:-1]):
        with xybridd.connect(app="late", socket=daemon.socket, session_id=wrong) as late:
            late.record_inference("m", "1", 1)
            assert late.flush(PATIENCE_S)
            mine = late.session_id
            assert mine != wrong
        assert session(daemon, mine)["total_inferences"] == 1
        assert session(daemon, mine)["extensions"]["end_reason"] == "ended"
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 3
    assert session(daemon, gone)["total_inferences"] == 1
