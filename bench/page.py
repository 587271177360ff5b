"""`python -m bench.page`: puts the figures of bench.json into docs/performance.md, between its marks."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
CLIENTS = 8
"""Of the rows that the table of costs is made of."""
MARKS = ("<!-- figures -->\n", "<!-- /figures -->\n")

cli = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@cli.command()
def main(
    results: Annotated[Path, typer.Argument(help="What `make bench` wrote.")] = Path("bench.json"),
    *,
    page: Annotated[Path, typer.Option(help="The document to write into.")] = PAGE,
) -> None:
    """Write the machine, the rates and what they cost."""
    before, begin, rest = page.read_text().partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not end:
        raise SystemExit(f"{page.name} needs one place {MARKS[0].strip()} … {MARKS[1].strip()}")
    page.write_text(f"{before}{begin}{figures(json.loads(results.read_text()))}{end}{after}")


def figures(found: dict[str, Any]) -> str:
    """The figures of a run of the benchmark, as Markdown.

    Raises:
        SystemExit: there were errors, so they are worth nothing.

    """
    if any(row[end]["errors"] for row in found["rows"] for end in ("http", "driver")):
        raise SystemExit("there are errors among the results: measure again")
    machine, seconds = found["machine"], found["settings"]["seconds"]
    processes = list(found["rows"][0]["http"]["cpu_ms"])
    costly = [row for row in found["rows"] if row["clients"] == CLIENTS and row["products"] != 1]
    where = f"{machine['cpu']}, {machine['cpus']} CPUs (load before: {machine['load_before']})"
    lines = [
        f"{where}, Python {machine['python']}, {machine['version']}, {seconds:g} s a cell:",
        "",
        "| operation | products | clients | requests/s | p50 ms | p99 ms | of the driver's rate |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *map(_rate, found["rows"]),
        "",
        f"| CPU of a request, ms, {CLIENTS} clients | {' | '.join(processes)} |",
        f"|---|{'---:|' * len(processes)}",
        *(_cost(row, processes) for row in costly),
    ]
    return "\n".join(lines) + "\n"


def _rate(row: dict[str, Any]) -> str:
    http = row["http"]
    return (
        f"| {row['operation']} | {row['products']} | {row['clients']} | {http['rate']:,.0f} "
        f"| {http['p50_ms']:.1f} | {http['p99_ms']:.1f} | {row['ratio']:.2f} |"
    )


def _cost(row: dict[str, Any], processes: list[str]) -> str:
    cells = (f"{row['http']['cpu_ms'].get(process, 0):.2f}" for process in processes)
    return f"| {row['operation']} | {' | '.join(cells)} |"


if __name__ == "__main__":
    cli()
