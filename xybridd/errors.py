"""Every error this project raises, in one tree, with the code each has on the wire.

XybriddError
├── WireError               answered to a client; `rpc_code` and `code` go on the wire
│   ├── ParseError          -32700
│   ├── InvalidRequest      -32600   (also a line that is too long)
│   ├── MethodNotFound      -32601
│   ├── InvalidParams       -32602   names the parameter by its path
│   ├── InternalError       -32603
│   ├── UnknownSession      -32001   unknown_session
│   ├── SessionEnded        -32002   session_ended
│   ├── PermissionDenied    -32003   permission_denied
│   ├── Overloaded          -32004   overloaded            with retry_after_ms
│   ├── StorageUnavailable  -32005   storage_unavailable   with retry_after_ms
│   └── HelloRequired       -32006   hello_required
├── ConfigError             the config file cannot be used
├── StartError              the daemon cannot start: data in use, socket in use, path too long
├── ServiceError            the service cannot be installed, started or asked here
├── StorageError            a transaction failed; it may succeed later (disk full, I/O error)
│   └── CorruptDatabase     the file is not a sound database any more
└── DaemonUnreachable       no daemon answers at any socket that was tried
"""

from typing import Any, ClassVar


class XybriddError(Exception):
    """The base of all of them."""


class WireError(XybriddError):
    """An error with a place on the wire: JSON-RPC's number and a stable name in ``error.data.code``."""

    rpc_code: ClassVar[int] = -32603
    code: str = "internal"

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.data = data


class ParseError(WireError):
    rpc_code = -32700
    code = "parse_error"


class InvalidRequest(WireError):
    rpc_code = -32600
    code = "invalid_request"


class FrameTooLong(InvalidRequest):
    """A line longer than ``limits.max_frame_bytes``; the connection is closed after this answer."""

    code = "frame_too_long"


class MethodNotFound(WireError):
    rpc_code = -32601
    code = "method_not_found"


class InvalidParams(WireError):
    """``path`` is where in the request: ``$.params.records[3].latency_ms``."""

    rpc_code = -32602
    code = "invalid_params"


class InternalError(WireError):
    rpc_code = -32603
    code = "internal"


class UnknownSession(WireError):
    rpc_code = -32001
    code = "unknown_session"


class SessionEnded(WireError):
    rpc_code = -32002
    code = "session_ended"


class PermissionDenied(WireError):
    rpc_code = -32003
    code = "permission_denied"


class Overloaded(WireError):
    """Nothing of the request was taken; ``retry_after_ms`` says when to send it again."""

    rpc_code = -32004
    code = "overloaded"


class StorageUnavailable(WireError):
    """The disk refuses; nothing of the request was taken, ``retry_after_ms`` says when to send it again."""

    rpc_code = -32005
    code = "storage_unavailable"


class HelloRequired(WireError):
    rpc_code = -32006
    code = "hello_required"


class ConfigError(XybriddError):
    """Names the file, the key, the value and what was expected."""


class StartError(XybriddError):
    """The daemon cannot start; the message says what is in the way and what to do."""


class ServiceError(XybriddError):
    """The service cannot be installed, started or asked; the message says why and what to do."""


class StorageError(XybriddError):
    """A transaction failed and was rolled back; trying it again may succeed."""


class CorruptDatabase(StorageError):
    """SQLite found the database file malformed, or not a database at all."""


class DaemonUnreachable(XybriddError):
    """No daemon answers; ``tried`` are the socket paths that were tried."""

    def __init__(self, message: str, tried: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.tried = tried


WIRE_ERRORS: dict[str, type[WireError]] = {
    kind.code: kind
    for kind in (
        ParseError,
        InvalidRequest,
        FrameTooLong,
        MethodNotFound,
        InvalidParams,
        InternalError,
        UnknownSession,
        SessionEnded,
        PermissionDenied,
        Overloaded,
        StorageUnavailable,
        HelloRequired,
    )
}
