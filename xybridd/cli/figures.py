"""A group of minutes as a row of figures, and the columns that show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xybridd.cli.output import ms
from xybridd.cli.table import UNKNOWN, Column, number

if TYPE_CHECKING:
    from xybridd.core.grouping import Group
    from xybridd.core.stats import StatsTotals

    Row = dict[str, Any]

TARGETS = ("local", "cloud", "fallback")
HARDWARE = ("cpu", "gpu", "npu")

LATENCIES = ("p50_ms", "p90_ms", "p99_ms", "max_ms")

#: The names in JSON and CSV of what `figures` says, in their order.
FIELDS = (
    "calls", "errors", "error_percent", "cancelled", *LATENCIES, "tokens_per_second", "time_to_first_token_p50_ms",
)  # fmt: skip
SPLITS = (*(f"target_{name}" for name in TARGETS), *(f"hardware_{name}" for name in HARDWARE))


def figures(one: Group) -> Row:
    """None where nobody knows, or where it cannot be told apart by the dimensions."""
    latency = one.latency if one.latency is not None and one.latency.count else None
    rate = one.error_rate
    tokens, first_token = _from_stats(one.stats)
    return {
        "calls": one.calls,
        "errors": one.errors,
        "error_percent": None if rate is None else round(rate, 3),
        "cancelled": one.cancelled,
        **{
            f"p{share}_ms": None if latency is None else _rounded(latency.quantile(share / 100))
            for share in (50, 90, 99)
        },
        "max_ms": None if latency is None else _rounded(latency.max),
        "tokens_per_second": tokens,
        "time_to_first_token_p50_ms": first_token,
    }


def _from_stats(stats: StatsTotals | None) -> tuple[float | None, float | None]:
    if stats is None:
        return None, None
    rate, first = stats.rates.get("tokens_per_second"), stats.time_to_first_token_ms
    return (
        round(rate.total / rate.count, 3) if rate is not None and rate.count else None,
        _rounded(first.quantile(0.5)) if first.count else None,
    )


def splits(one: Group) -> Row:
    """Of the calls that said so, how many ran where; those that did not say are in none."""
    names = one.stats.names if one.stats is not None else {}
    targets, hardware = names.get("execution_target", {}), names.get("hardware_used", {})
    return {f"target_{name}": targets.get(name, 0) for name in TARGETS} | {
        f"hardware_{name}": hardware.get(name, 0) for name in HARDWARE
    }


def _rounded(value: float) -> float:
    return round(value, 3)


# As people see them


def count(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"


def percent(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:.0f}" if value in {0, 100} or value >= 10 else f"{value:.1f}" if value >= 0.1 else "<0.1"


def decimal(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.1f}"


def split(row: Row, prefix: str, names: tuple[str, ...]) -> str:
    """``gpu 92 %, cpu 8 %``: the largest share first."""
    shares = sorted(((row[f"{prefix}_{name}"], name) for name in names), reverse=True)
    whole = sum(amount for amount, _ in shares)
    if not whole:
        return UNKNOWN
    if shares[0][0] == whole:
        return shares[0][1]
    return ", ".join(f"{name} {percent(100 * amount / whole)} %" for amount, name in shares if amount)


def errors_red(row: Row) -> str:
    return "red" if row["errors"] else ""


def columns() -> list[Column]:
    """The columns for `figures`."""
    return [
        number("calls", lambda row: count(row["calls"])),
        number("errors", lambda row: count(row["errors"]), 8, style=errors_red),
        number("err %", lambda row: percent(row["error_percent"]), 5),
        # Most apps cancel nothing: the column is shown where one did.
        number("cancelled", lambda row: count(row["cancelled"] or None), 4),
        number("p50 ms", lambda row: ms(row["p50_ms"])),
        number("p90", lambda row: ms(row["p90_ms"]), 7),
        number("p99", lambda row: ms(row["p99_ms"]), 6),
        number("max", lambda row: ms(row["max_ms"]), 2),
        number("tok/s", lambda row: decimal(row["tokens_per_second"]), 4),
        number("1st tok ms", lambda row: ms(row["time_to_first_token_p50_ms"]), 3),
    ]
