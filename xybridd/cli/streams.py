"""Output to whatever knows no UTF-8: what it cannot show is replaced by what looks like it, else by its escape."""

from __future__ import annotations

import codecs
import io
import sys

#: One character for one, so that columns stay where they are.
_SHOWN = "●○✓✗×→←↑↓–—−·…“”„‘’│┃─━╸╺═├└┌┐┘┤µ°≤≥▁▂▃▄▅▆▇█▏░▒▓"  # noqa: RUF001
_INSTEAD = '*ovxx><^v---.~"""\'\'||----=++++++uo<>__--==##|.:#'
_LOOKALIKES = dict(zip(_SHOWN, _INSTEAD, strict=True))

_HANDLER = "xybridd.lookalikes"


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    shown = (_LOOKALIKES.get(each) or each.encode("ascii", "backslashreplace").decode("ascii") for each in text)
    return "".join(shown), error.end


#: ASCII under a name of ours: to click, ASCII by its own name is a mistake of the environment, and it writes UTF-8.
_ASCII = "xybridd-ascii"


def _codec(name: str) -> codecs.CodecInfo | None:
    if name.replace("_", "-") != _ASCII:
        return None
    found = codecs.lookup("ascii")
    return codecs.CodecInfo(
        found.encode,
        found.decode,
        found.streamreader,
        found.streamwriter,
        found.incrementalencoder,
        found.incrementaldecoder,
        name=_ASCII,
    )


codecs.register(_codec)
codecs.register_error(_HANDLER, _replaced)


def prepare_streams() -> None:
    """No output fails for a character, such as one in a file's name that is no text."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            is_ascii = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding=_ASCII if is_ascii else stream.encoding, errors=_HANDLER)
