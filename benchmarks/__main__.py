"""``python -m benchmarks [NAME …] [--quick] [--json] [--folder DIR]``"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks import (
    call,
    connections,
    cpu,
    gap,
    idle,
    imports,
    loss,
    lttng,
    memory,
    probes,
    reading,
    request,
    start,
    sustained,
    throughput,
    upload,
    written,
)
from benchmarks.bench import Bench
from benchmarks.machine import describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.rows import Row


class Benchmark(NamedTuple):
    name: str
    measure: Callable[[Bench], list[Row]]


#: Every benchmark there is, in the order of the table.
BENCHMARKS = (
    Benchmark("call", call.measure),
    Benchmark("lttng", lttng.measure),
    Benchmark("cpu", cpu.measure),
    Benchmark("gap", gap.measure),
    Benchmark("loss", loss.measure),
    Benchmark("memory", memory.measure),
    Benchmark("import", imports.measure),
    Benchmark("sustained", sustained.measure),
    Benchmark("reading", reading.measure),
    Benchmark("throughput", throughput.measure),
    Benchmark("request", request.measure),
    Benchmark("idle", idle.measure),
    Benchmark("start", start.measure),
    Benchmark("written", written.measure),
    Benchmark("connections", connections.measure),
    Benchmark("probes", probes.measure),
    Benchmark("upload", upload.measure),
)


def _arguments() -> argparse.Namespace:
    names = [benchmark.name for benchmark in BENCHMARKS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What xybridd costs, beside its floors.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, shorter waits: about a minute and a half")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--folder", type=Path, help="where to write: a folder on the file system to be measured")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(names):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(names)}")
    return arguments


def _print_table(machine: dict[str, str], rows: list[Row]) -> None:
    table = Table(show_lines=False, pad_edge=False)
    for title, justify in (
        ("what", "left"),
        ("measured", "right"),
        ("floor or peer", "left"),
        ("ratio", "right"),
        ("target", "right"),
        ("met", "left"),
    ):
        table.add_column(title, justify=justify)  # type: ignore[arg-type] # rich wants literals
    for row in rows:
        table.add_row(*row.cells())
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    for name, value in machine.items():
        console.print(f"{name}: {value}", markup=False)
    if machine["file system"] == "tmpfs":
        console.print("This folder is in memory, where an fsync costs nothing; name another with --folder.")
    console.print(table)


def _keep_bytecode(bench: Bench) -> None:
    """As an installed package has it. Without, every process started here would compile ours, and no peer's."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(bench.folder / "bytecode")
    with bench.daemon():
        pass  # a daemon that compiles is slow to start, and keeps six megabytes more


def main() -> None:
    arguments = _arguments()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="xb-", dir=arguments.folder) as name:
        bench = Bench(Path(name), arguments.quick)
        _keep_bytecode(bench)
        machine = describe(bench.folder)
        for benchmark in BENCHMARKS:
            if not arguments.names or benchmark.name in arguments.names:
                print(f"{benchmark.name} …", file=sys.stderr)
                rows += benchmark.measure(bench)
    if arguments.json:
        print(
            json.dumps(
                {"machine": machine, "quick": arguments.quick, "rows": [row.as_json() for row in rows]}, indent=1
            )
        )
    else:
        _print_table(machine, rows)


main()
