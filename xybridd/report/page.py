"""The HTML page, whole: one file that asks nobody for anything."""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING

from xybridd.report import text
from xybridd.report.sections import sections
from xybridd.report.text import esc

if TYPE_CHECKING:
    from xybridd.core.report.figures import Report

#: Sections that stand in the head of the page.
ABOVE = ("covers", "links")


@cache
def _asset(name: str) -> str:
    return files("xybridd.report").joinpath(name).read_text("utf-8")


def _hash(content: str) -> str:
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"


def policy(*, live: bool = False) -> str:
    """What the page may do: its own style and script, nothing from anywhere; a live one may ask where it came from."""
    connect = "; connect-src 'self'" if live else ""
    return (
        f"default-src 'none'; style-src {_hash(_asset('page.css'))}; script-src {_hash(_asset('page.js'))}; "
        f"img-src data:{connect}; base-uri 'none'; form-action 'none'"
    )


def page(report: Report, live_every_ms: int | None = None) -> str:
    """``live_every_ms``: it is served by `xybridd dashboard`, and asks for `live.json` so often."""
    parts = sections(report)
    live = live_every_ms is not None
    title = "xybridd dashboard" if live else "xybridd report"
    clock = text.Clock(report)
    # What is said aloud is whether it is live; the time beside it changes too often for that.
    status = (
        f'<p class="live"><span id="live" role="status" data-every-ms="{live_every_ms}">Live</span> '
        '<span id="live-at" aria-hidden="true"></span></p>'
        if live
        else ""
    )
    body = "".join(f'<section id="{key}">{html}</section>' for key, html in parts.items() if key not in ABOVE)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy(live=live)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{title} · {esc(clock.full(report.since_ms))} to {esc(clock.full(report.until_ms))}</title>
<style>{_asset("page.css")}</style>
</head>
<body>
<a class="skip" href="#main">To the figures</a>
<header><div><h1>{title}</h1><div id="covers">{parts["covers"]}</div></div>
<div><button id="theme" type="button" hidden>Theme</button>{status}</div></header>
<nav aria-label="Sections"><ul id="links">{parts["links"]}</ul></nav>
<main id="main">{body}</main>
<footer><p>Made by xybridd {esc(report.daemon_version)} from what this device keeps. Nothing was sent for it.</p>
</footer>
<script>{_asset("page.js")}</script>
</body>
</html>
"""
