"""`python -m bench.surge`; see the package for what it shows."""

from collections.abc import Sequence
from pathlib import Path

import typer

from bench.surge import chart, document, plot
from bench.surge.outcome import outcome
from bench.surge.world import Case, Moment, run

PICTURE = document.ROOT / "docs" / "surge.svg"
BEFORE, SURGE = 20.0, 200.0
"""Orders a second: usually, and during the surge."""
BEGINS, ENDS, MINUTES = 120, 720, 30
TITLE = f"{BEFORE:g} orders a second become {SURGE:g} for ten minutes"
COLOURS = {"customers": "c", "orders": "a", "orchestrator": "b"}


def main() -> None:
    """Simulate a tenfold surge with what the chart says; write the picture and tables of docs/scaling.md."""
    try:
        files, table = made()
    except chart.Unreadable as error:
        typer.echo(f"surge: {error}", err=True)
        raise SystemExit(1) from None
    for file, text in files.items():
        file.write_text(text)
        typer.echo(f"written: {file.relative_to(document.ROOT)}")
    typer.echo(f"\n{TITLE}:\n\n{table}")


def made() -> tuple[dict[Path, str], str]:
    """What the files should be, and the table of the runs.

    Raises:
        Unreadable: the chart does not say what is needed.

    """
    scaled = document.ways()
    found = [(case, run(case, load, 60 * MINUTES)) for case in document.cases(scaled)]
    table = document.surges([(case, outcome(case, moments, BEGINS, ENDS)) for case, moments in found])
    tables = {"numbers": document.numbers(scaled), "surges": table}
    return {document.DOCUMENT: document.written(tables), PICTURE: drawn(found)}, table


def load(now: float) -> float:
    """Orders a second that arrive at a time."""
    return SURGE if BEGINS <= now < ENDS else BEFORE


def drawn(found: Sequence[tuple[Case, Sequence[Moment]]]) -> str:
    """The picture of the runs with the chart as it is, a column each."""
    return plot.picture(
        TITLE,
        "Simulated with the values of the chart and the measured CPU of an order; see docs/scaling.md.",
        [_column(case, moments) for case, moments in found if case.name == document.AS_IT_IS],
        (BEGINS, ENDS),
        MINUTES,
    )


def _column(case: Case, moments: Sequence[Moment]) -> plot.Column:
    most = max(one.maximum for one in case.scaling.values())
    rates = [
        plot.Line("arriving", "ink", [moment.arriving for moment in moments], dashed=True),
        plot.Line("finished", "a", [moment.finished for moment in moments]),
    ]
    pods = [
        plot.Line(service, COLOURS[service], [moment.pods[service] for moment in moments])
        for service in chart.SERVICES
    ]
    latency = [plot.Line("", "d", [moment.latency for moment in moments])]
    limit = (case.shed, "ANSWER_TIMEOUT: 503, ask again; the saga goes on")
    panels = [
        plot.Panel("Orders a second", rates, 400, range(0, 401, 100)),
        plot.Panel("Ready pods", pods, most + 1, range(0, most + 1, 2)),
        plot.Panel("Seconds to the answer", latency, 30, range(0, 31, 5), limit),
    ]
    return plot.Column(document.WAYS[case.by], panels)


if __name__ == "__main__":
    main()
