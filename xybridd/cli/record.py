"""``xybridd record``: from a shell, one line a record."""

from __future__ import annotations

from typing import Any

import click

from xybridd.cli.output import call, json_option, print_json

_CATEGORIES = (
    "model_loading", "preprocessing", "inference", "postprocessing", "network", "hardware", "memory", "unknown",
)  # fmt: skip


@click.group()
def record() -> None:
    """Record from a shell.

    Without --session all records of one user from here go into one session, which ends when it is idle for half an
    hour.

    \b
    Example:  xybridd record inference whisper-tiny 1.0 212 --hardware gpu
    """


def _say(answer: dict[str, Any], what: str, *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{what} in session {answer['session_id']}")


_session_option = click.option("--session", "session_id", metavar="ID", help="Into this session.")


@record.command()
@click.argument("model_id")
@click.argument("version")
@click.argument("latency_ms", type=float)
@click.option("--tokens-per-second", type=float)
@click.option("--samples-per-second", type=float)
@click.option("--memory-peak-mb", type=int)
@click.option("--input-tokens", type=int)
@click.option("--output-tokens", type=int)
@click.option("--time-to-first-token-ms", type=float)
@click.option("--target", "execution_target", type=click.Choice(["local", "cloud", "fallback"]))
@click.option("--hardware", "hardware_used", type=click.Choice(["cpu", "gpu", "npu"]))
@_session_option
@json_option
def inference(
    model_id: str, version: str, latency_ms: float, session_id: str | None, *, as_json: bool, **stats: Any
) -> None:
    """Record that MODEL_ID at VERSION answered in LATENCY_MS milliseconds.

    \b
    Example:  xybridd record inference whisper-tiny 1.0 212 --hardware gpu
    """
    given = {name: value for name, value in stats.items() if value is not None}
    answer = call(
        "record.inference",
        model_id=model_id,
        version=version,
        latency_ms=latency_ms,
        stats=given or None,
        session_id=session_id,
    )
    _say(answer, f"recorded {model_id}", as_json=as_json)


@record.command()
@click.argument("message")
@click.option("--model", "model_id", metavar="ID", help="The model that failed.")
@click.option("--model-version", "version", metavar="VERSION")
@click.option(
    "--category",
    type=click.Choice(_CATEGORIES),
    metavar="CATEGORY",
    help=f"Default: by the words of the message. One of {', '.join(_CATEGORIES)}.",
)
@_session_option
@json_option
def error(message: str, session_id: str | None, *, as_json: bool, **about: str | None) -> None:
    """Record that something went wrong.

    \b
    Example:  xybridd record error "CUDA out of memory" --model whisper-tiny
    """
    answer = call("record.error", error=message, session_id=session_id, **about)
    _say(answer, f"recorded an error of category {answer['category']}", as_json=as_json)
