"""The handlers of what leaves the device, or is deleted from it; the table of methods is in `xybridd.daemon.handlers`.

All but ``upload.status`` and forgetting a session of one's own are for root and the daemon's own user.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from xybridd.core.importing import item_from
from xybridd.daemon.reply import Reply
from xybridd.errors import InvalidParams, PermissionDenied
from xybridd.storage import outbox

if TYPE_CHECKING:
    import sqlite3

    from xybridd.core.delivery import Item
    from xybridd.daemon.reply import Services
    from xybridd.protocol import messages as m
    from xybridd.services.sessions import Link


def _owner_only(services: Services, link: Link, what: str) -> None:
    if not services.recorder.sees_all(link):
        raise PermissionDenied(f"{what} is for root and the daemon's own user")


async def upload_status(services: Services, _link: Link, _params: m.NoParams) -> Reply:
    return Reply(await services.uploader.status())


async def upload_now(services: Services, link: Link, _params: m.NoParams) -> Reply:
    """Send what waits, whatever it waits for; answers at once with the status."""
    _owner_only(services, link, "upload.now")
    services.uploader.send_now()
    return Reply(await services.uploader.status())


async def upload_pause(services: Services, link: Link, _params: m.NoParams) -> Reply:
    return await _pause(services, link, paused=True)


async def upload_resume(services: Services, link: Link, _params: m.NoParams) -> Reply:
    return await _pause(services, link, paused=False)


async def _pause(services: Services, link: Link, *, paused: bool) -> Reply:
    _owner_only(services, link, "upload.pause" if paused else "upload.resume")
    await services.uploader.pause(paused=paused)
    return Reply(await services.uploader.status())


async def upload_preview(services: Services, link: Link, _params: m.NoParams) -> Reply:
    """The jobs that would go next, bodies and all, without the key."""
    _owner_only(services, link, "upload.preview")
    return Reply({"jobs": await services.uploader.preview()})


async def upload_import(services: Services, link: Link, params: m.ImportParams) -> Reply:
    """Queue exports of another device; all of them, or none when one is no export."""
    _owner_only(services, link, "upload.import")
    items = []
    for number, line in enumerate(params.exports):
        try:
            items.append(item_from(bytes(line), services.clock.wall_ms()))
        except ValueError as error:
            raise InvalidParams(f"$.params.exports[{number}]: {error}", path=f"$.params.exports[{number}]") from error
    uploader = services.uploader
    if not uploader.takes_sessions:
        raise InvalidParams("no sink that takes sessions is on: configure [upload] or [file] first", path="$.params")
    new = await services.store.transact(partial(outbox.take_in, items=items, sinks=uploader.on))
    await uploader.refresh()
    uploader.wake()
    return Reply({"queued": new, "known": len(items) - new})


# Dead letters


async def dead_list(services: Services, link: Link, _params: m.NoParams) -> Reply:
    _owner_only(services, link, "upload.dead.list")
    return Reply({"dead": await services.store.query(outbox.dead)})


async def dead_show(services: Services, link: Link, params: m.DeadLetterParams) -> Reply:
    _owner_only(services, link, "upload.dead.show")
    if params.export_id is None:
        raise InvalidParams("$.params.export_id: required, but missing", path="$.params.export_id")
    device_id = services.recorder.installation.device_id
    found = await services.store.query(partial(outbox.dead_item, row_id=params.export_id, device_id=device_id))
    if found is None:
        raise _no_letter(params.export_id)
    letter, item = found
    return Reply(msgspec.structs.asdict(letter) | {"payload": _readable(item)})


async def dead_replay(services: Services, link: Link, params: m.DeadLetterParams) -> Reply:
    _owner_only(services, link, "upload.dead.replay")
    done = await _each_dead(services, params, outbox.replay)
    services.uploader.wake()
    return Reply({"replayed": done})


async def dead_drop(services: Services, link: Link, params: m.DeadLetterParams) -> Reply:
    _owner_only(services, link, "upload.dead.drop")
    return Reply({"dropped": await _each_dead(services, params, partial(outbox.remove, event="forget"))})


async def _each_dead(services: Services, params: m.DeadLetterParams, act: Any) -> int:
    """The one that is named, or all. Raises InvalidParams when there is none of that id."""

    def job(connection: sqlite3.Connection) -> int | None:
        ids = [letter.export_id for letter in outbox.dead(connection)]
        if params.export_id is not None and params.export_id not in ids:
            return None
        done: int = act(connection, ids if params.export_id is None else [params.export_id])
        return done

    done = await services.store.transact(job)
    if done is None:
        raise _no_letter(params.export_id)
    await services.uploader.refresh()
    return done


def _no_letter(export_id: int | None) -> InvalidParams:
    return InvalidParams(
        f"$.params.export_id: there is no dead letter {export_id}; upload.dead.list has them", path="$.params.export_id"
    )


def _readable(item: Item | None) -> Any:
    if item is None:
        return None
    return msgspec.Raw(item.body) if item.kind == "session" else msgspec.to_builtins(item)


# Forgetting


async def forget(services: Services, link: Link, params: m.ForgetParams) -> Reply:
    if params.all:
        _owner_only(services, link, "data.forget of everything")
        return Reply(await services.forgetting.everything())
    if params.session_id is None:
        raise InvalidParams("$.params: expected a session_id, or all: true", path="$.params")
    return Reply(await services.forgetting.session(link, params.session_id))
