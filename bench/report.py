"""The table and bench.json."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.run import Results, Row


def line(row: Row) -> str:
    """A row, while the others are still to come."""
    return (
        f"{row.operation}, {row.products} product(s), {row.clients} client(s): "
        f"{row.http.rate:.0f}/s over HTTP, {row.driver.rate:.0f}/s by the driver alone"
    )


def show(console: Console, results: Results) -> None:
    """Print what was found."""
    console.print(_rates(results.rows), _costs(results))
    for row in results.rows:
        for end, measured in (("HTTP", row.http), ("driver", row.driver)):
            for error, count in measured.errors.items():
                console.print(f"{row.operation}, {row.clients} client(s), {end}: {count} times {error}")
    load, cpus = results.machine["load_before"], results.machine["cpus"]
    if load > cpus / 4:
        console.print(f"The machine was busy before (load {load} on {cpus} CPUs): the figures are too low.")


def _rates(rows: list[Row]) -> Table:
    table = Table(title="Requests over HTTP, and the same statements by the driver alone")
    table.add_column("operation")
    for heading in (
        "products", "clients",
        "HTTP /s", "p50 ms", "p99 ms", "errors",
        "driver /s", "p50 ms", "p99 ms", "errors",
        "HTTP/driver",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    for before, row in zip([None, *rows], rows, strict=False):
        if before and before.operation != row.operation:
            table.add_section()
        cells = [str(row.products), str(row.clients)]
        for end in (row.http, row.driver):
            errors = str(sum(end.errors.values()))
            cells += [f"{end.rate:,.0f}", f"{end.p50_ms:.1f}", f"{end.p99_ms:.1f}", errors]
        table.add_row(row.operation, *cells, f"{row.ratio:.2f}")
    return table


def _costs(results: Results) -> Table:
    """What one request takes, with all products and the most clients."""
    processes = list(results.rows[0].http.cpu_ms)
    table = Table(title="What one request over HTTP takes: milliseconds of CPU by process, and what is sent")
    table.add_column("operation")
    for process in processes:
        table.add_column(process, justify="right")
    table.add_column("sent to the database")
    rows = {row.operation: row for row in results.rows if row.products != 1}
    for name, row in rows.items():
        verbs = Counter(statement.split(None, 1)[0] for statement in results.statements[name])
        table.add_row(
            name,
            *(f"{row.http.cpu_ms.get(process, 0):.2f}" for process in processes),
            ", ".join(f"{count} {verb}" for verb, count in verbs.most_common()),
        )
    return table


def write(file: Path, results: Results) -> None:
    """Write everything as JSON, with a ratio for each row."""
    content = asdict(results)
    content["statements"] = {name: list(map(_printable, sent)) for name, sent in results.statements.items()}
    for written, row in zip(content["rows"], results.rows, strict=True):
        written["ratio"] = row.ratio
    file.write_text(json.dumps(content, indent=2) + "\n")


def _printable(statement: str) -> str:
    """Write bytes that are no UTF-8 (hashes) as escapes."""
    return statement.encode(errors="surrogateescape").decode(errors="backslashreplace")
