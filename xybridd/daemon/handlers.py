"""One table from method to service, and the one place where a request becomes an answer."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from xybridd import __version__
from xybridd.core.category import category_named
from xybridd.core.minute import MinuteFilter
from xybridd.core.registry import Identity
from xybridd.core.session import judge_error
from xybridd.daemon import outward
from xybridd.daemon.refusals import METHODS as REFUSED_METHODS
from xybridd.daemon.reply import Reply
from xybridd.errors import (
    CorruptDatabase,
    InternalError,
    InvalidParams,
    MethodNotFound,
    PermissionDenied,
    StorageError,
    StorageUnavailable,
    WireError,
)
from xybridd.protocol import messages as m
from xybridd.protocol.framing import Request, decode_params
from xybridd.protocol.records import ErrorRecord, InferenceRecord
from xybridd.services.watching import Wanted
from xybridd.storage.rows import SessionFilter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from xybridd.daemon.reply import Services
    from xybridd.services.sessions import Link

log = logging.getLogger(__name__)

#: What is shown of the device may be this old: it may be asked for often, and probes cost something.
_CAPABILITIES_FRESH_S = 1.0


# Producers and sessions


async def _hello(services: Services, link: Link, params: m.HelloParams) -> Reply:
    identity = Identity(link.uid, params.app, str(params.client_id), params.app_version, params.sdk_version)
    last_seq = await services.recorder.hello(link, identity, params.session_id)
    link.boot_id = params.boot_id
    return Reply(
        m.HelloResult(
            protocol=m.PROTOCOL_VERSION,
            daemon_version=__version__,
            device_id=services.recorder.installation.device_id,
            last_seq=last_seq,
            limits=_limits(services),
        )
    )


def _limits(services: Services) -> dict[str, int]:
    limits = services.config.limits
    return {"max_frame_bytes": limits.max_frame_bytes, "max_batch_records": limits.max_batch_records}


async def _session_start(services: Services, link: Link, params: m.SessionStartParams) -> Reply:
    proposed = None if params.session_id is None else str(params.session_id)
    session_id, ticket = await services.recorder.start(link, proposed, params.started_at_ms, params.labels)
    return Reply(m.SessionIdResult(session_id), ticket)


async def _session_get(services: Services, link: Link, params: m.SessionParams) -> Reply:
    return Reply(await services.recorder.metrics(link, params.session_id))


async def _session_export(services: Services, link: Link, params: m.SessionParams) -> Reply:
    return Reply(await services.recorder.export(link, params.session_id))


async def _session_end(services: Services, link: Link, params: m.SessionParams) -> Reply:
    return Reply(*await services.recorder.end(link, params.session_id))


async def _session_reset(services: Services, link: Link, params: m.SessionParams) -> Reply:
    session_id, ticket = await services.recorder.reset(link, params.session_id)
    return Reply(m.SessionIdResult(session_id), ticket)


async def _session_list(services: Services, link: Link, params: m.SessionListParams) -> Reply:
    wanted = SessionFilter(
        uid=None if services.recorder.sees_all(link) else link.uid,
        active=params.active,
        app=params.app,
        since_ms=params.since_ms,
        until_ms=params.until_ms,
        limit=params.limit,
    )
    return Reply({"sessions": await services.recorder.sessions(wanted)})


async def _stats_minutes(services: Services, link: Link, params: m.MinutesParams) -> Reply:
    wanted = MinuteFilter(
        app=params.app,
        session_id=params.session_id,
        since_ms=params.since_ms,
        until_ms=params.until_ms,
        after=params.after or (-1, 0),
        limit=params.limit,
    )
    return Reply(await services.recorder.minutes(link, wanted))


# Records


async def _record_inference(services: Services, link: Link, params: m.RecordInferenceParams) -> Reply:
    record = InferenceRecord(params.model_id, params.version, params.latency_ms, params.timestamp_ms, params.stats)
    session_id, ticket = await services.recorder.record(link, record, params.session_id)
    return Reply(m.SessionIdResult(session_id), ticket)


async def _record_error(services: Services, link: Link, params: m.RecordErrorParams) -> Reply:
    record = ErrorRecord(params.error, params.model_id, params.version, params.category, params.timestamp_ms)
    session_id, ticket = await services.recorder.record(link, record, params.session_id)
    category = judge_error(params.error)[0] if params.category is None else category_named(params.category)
    return Reply(m.RecordErrorResult(session_id, category.value), ticket)


async def _record_batch(services: Services, link: Link, params: m.RecordBatchParams) -> Reply:
    most = services.config.limits.max_batch_records
    if len(params.records) > most:
        raise InvalidParams(
            f"$.params.records: expected at most {most} records, got {len(params.records)}",
            path="$.params.records",
        )
    last_seq, session_id, ticket = await services.recorder.batch(
        link,
        params.seq,
        params.records,
        session_id=params.session_id,
        flush=params.flush,
        dropped=params.dropped,
    )
    return Reply(m.BatchResult(last_seq, session_id), ticket)


# Rings


def _sent_file(link: Link) -> int:
    fd = link.take_file()
    if fd is None:
        raise InvalidParams("no file came with the request: send the open ring with it (SCM_RIGHTS)")
    return fd


async def _ring_attach(services: Services, link: Link, _params: m.NoParams) -> Reply:
    return Reply(await services.rings.attach(link, _sent_file(link)))


async def _ring_drain(services: Services, link: Link, _params: m.NoParams) -> Reply:
    drained, ticket = await services.rings.drain(_sent_file(link), link.uid)
    return Reply({"drained": drained}, ticket)


async def _ring_flush(services: Services, link: Link, params: m.RingFlushParams) -> Reply:
    return Reply(*await services.rings.flush(link, str(params.ring_id), params.seq))


async def _ring_wake(services: Services, link: Link, _params: m.NoParams) -> Reply:
    services.rings.wake(link)
    return Reply({})


async def _records_watch(services: Services, link: Link, params: m.RecordsWatchParams) -> Reply:
    uid = None if services.recorder.sees_all(link) else link.uid
    services.watching.watch(link, Wanted(uid, params.app, params.model_id, params.errors_only))
    return Reply({})


# The device and the daemon


async def _device_capabilities(services: Services, _link: Link, _params: m.NoParams) -> Reply:
    return Reply(await services.device.capabilities(_CAPABILITIES_FRESH_S))


async def _device_advice(services: Services, link: Link, params: m.DeviceAdviceParams) -> Reply:
    return Reply(await services.device.advice(link.pid, params.model_size_mb, params.safety_margin))


async def _device_watch(services: Services, link: Link, _params: m.NoParams) -> Reply:
    now = await services.device.watch(link.link_id, link.push)
    services.watch_device()
    return Reply(now)


async def _device_samples(services: Services, _link: Link, params: m.SamplesParams) -> Reply:
    """The device as it was while something was recorded, minute by minute, oldest first."""
    return Reply({"samples": await services.store.samples(params.since_ms, params.limit)})


async def _daemon_status(services: Services, link: Link, _params: m.NoParams) -> Reply:
    recorder = services.recorder
    failure = recorder.committer.failure
    try:
        use = await services.store.use()
        stored: dict[str, Any] = {
            "size_bytes": use.size_bytes, "used_bytes": use.used_bytes, "salvages": use.salvages
        }  # fmt: skip
        count: int | None = use.sessions
        upload = await services.uploader.status()
    except StorageError as error:
        # Status is asked for when something is wrong: what cannot be read is left out, and said.
        failure, stored, count = failure or f"the database cannot be read: {error}", {}, None
        upload = {"state": "unknown", "reason": "the database cannot be read", "sinks": []}
        recorder.committer.later()  # if it is damaged, that mends it
    return Reply(
        {
            "state": "ok" if failure is None else "degraded",
            "reason": failure,
            "version": __version__,
            "pid": os.getpid(),
            "uptime_s": round(services.clock.monotonic_s() - services.started_s, 3),
            "clock_moved_s": round(services.clock_moved_s(), 3),
            "device_id": recorder.installation.device_id,
            "connections": services.connections(),
            "sessions": {"active": recorder.registry.active_count(), "stored": count},
            "storage": {
                "path": os.fsencode(services.store.path).decode("utf-8", "replace"),
                "quota_bytes": services.retention.quota_bytes,
                **stored,
            },
            "rings": {"attached": len(services.rings)},
            "limits": _limits(services),
            "upload": upload,
            "ledger": recorder.pending.shown_ledger(),
            "refused_clients": services.refusals.shown(None if recorder.sees_all(link) else link.uid),
        }
    )


async def _daemon_check(services: Services, link: Link, _params: m.NoParams) -> Reply:
    """Have all of the database looked at: what is wrong with it, or null. Damage is mended at once."""
    recorder = services.recorder
    if not recorder.sees_all(link):
        raise PermissionDenied("daemon.check is for root and the daemon's own user")
    try:
        rows = await services.store.check()
    except CorruptDatabase as error:
        recorder.committer.later()  # that mends it
        return Reply({"complaint": str(error), "rows": {}})
    return Reply({"complaint": None, "rows": rows})


async def _daemon_flush(services: Services, link: Link, _params: m.NoParams) -> Reply:
    return Reply({}, services.recorder.flush(link))


class Method(NamedTuple):
    """``records``: what is refused of it counts as rejected records in the ledger."""

    params: msgspec.json.Decoder[Any]
    call: Callable[[Services, Link, Any], Awaitable[Reply]]
    records: bool = False


def _method(params: type, call: Callable[[Services, Link, Any], Awaitable[Reply]], *, records: bool = False) -> Method:
    return Method(msgspec.json.Decoder(params), call, records)


METHODS: dict[str, Method] = {
    "hello": _method(m.HelloParams, _hello),
    "session.start": _method(m.SessionStartParams, _session_start),
    "session.get": _method(m.SessionParams, _session_get),
    "session.list": _method(m.SessionListParams, _session_list),
    "session.export": _method(m.SessionParams, _session_export),
    "session.end": _method(m.SessionParams, _session_end),
    "session.reset": _method(m.SessionParams, _session_reset),
    "stats.minutes": _method(m.MinutesParams, _stats_minutes),
    "record.inference": _method(m.RecordInferenceParams, _record_inference, records=True),
    "record.error": _method(m.RecordErrorParams, _record_error, records=True),
    "record.batch": _method(m.RecordBatchParams, _record_batch, records=True),
    "ring.attach": _method(m.NoParams, _ring_attach),
    "ring.drain": _method(m.NoParams, _ring_drain),
    "ring.flush": _method(m.RingFlushParams, _ring_flush),
    "ring.wake": _method(m.NoParams, _ring_wake),
    "records.watch": _method(m.RecordsWatchParams, _records_watch),
    "device.capabilities": _method(m.NoParams, _device_capabilities),
    "device.advice": _method(m.DeviceAdviceParams, _device_advice),
    "device.watch": _method(m.NoParams, _device_watch),
    "device.samples": _method(m.SamplesParams, _device_samples),
    "upload.status": _method(m.NoParams, outward.upload_status),
    "upload.now": _method(m.NoParams, outward.upload_now),
    "upload.pause": _method(m.NoParams, outward.upload_pause),
    "upload.resume": _method(m.NoParams, outward.upload_resume),
    "upload.preview": _method(m.NoParams, outward.upload_preview),
    "upload.import": _method(m.ImportParams, outward.upload_import),
    "upload.dead.list": _method(m.NoParams, outward.dead_list),
    "upload.dead.show": _method(m.DeadLetterParams, outward.dead_show),
    "upload.dead.replay": _method(m.DeadLetterParams, outward.dead_replay),
    "upload.dead.drop": _method(m.DeadLetterParams, outward.dead_drop),
    "data.forget": _method(m.ForgetParams, outward.forget),
    "daemon.status": _method(m.NoParams, _daemon_status),
    "daemon.check": _method(m.NoParams, _daemon_check),
    "daemon.flush": _method(m.NoParams, _daemon_flush),
}


class _Countable(msgspec.Struct):
    records: list[msgspec.Raw]


def _records_in(params: msgspec.Raw) -> int:
    """How many records a refused request carried; one whose list cannot be read counts as one."""
    try:
        return len(msgspec.json.decode(params, type=_Countable).records)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return 1


class _Named(msgspec.Struct):
    app: str


def _app_of(link: Link, request: Request) -> str:
    """Who asks: the app that it said it is, or says now; else the name of its process."""
    if link.identity is not None:
        return link.identity.app
    try:
        return msgspec.json.decode(request.params, type=_Named).app
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return link.process_name().encode("utf-8", "replace").decode()


async def answer(services: Services, link: Link, request: Request) -> Reply:
    """Carry out one request. Raises WireError, and nothing else; what is refused is counted."""
    method = METHODS.get(request.method)
    if method is None:
        raise MethodNotFound(f"there is no method {request.method[:64]!r}; docs/protocol.md lists them")
    try:
        params = decode_params(method.params, request.params)
        return await method.call(services, link, params)
    except StorageError as error:
        raise StorageUnavailable(f"the daemon cannot use its disk: {error}", retry_after_ms=1000) from error
    except WireError as error:
        if method.records:
            services.recorder.refuse(_records_in(request.params), error.code)
        if request.method in REFUSED_METHODS:
            app = _app_of(link, request)
            services.refusals.note(link.uid, app, request.method, error, services.clock.wall_ms())
        raise
    except Exception as error:
        log.exception("the method %s failed", request.method)
        if method.records:
            services.recorder.refuse(_records_in(request.params), InternalError.code)
        raise InternalError(f"the daemon failed at {request.method}; its log says where") from error
