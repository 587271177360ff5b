"""The tables of docs/scaling.md, from the chart and the measured figures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bench.surge import chart
from bench.surge.chart import SERVICES, Scaling
from bench.surge.outcome import Outcome
from bench.surge.world import Case, Cost
from orchestrator.settings import Settings

ROOT = Path(__file__).parents[2]
CAPACITY = ROOT / "docs" / "capacity.json"
DOCUMENT = ROOT / "docs" / "scaling.md"

AS_IT_IS = "the chart's values"
FULL = 0.5
"""Cores that a pod gets on a node where all others want theirs, too: about what is requested."""
WAYS = {"hpa": "HPA on CPU", "keda": "KEDA on requests"}
_MINIMAL = "--set=global.db.existingSecret=b2b-orders"
_SWITCHED = tuple(
    f"--set={service}.autoscaling.{option}"
    for service in SERVICES
    for option in ("hpa.enabled=false", "keda.enabled=true")
)
DATABASE_SECONDS = {"customers": 0.002, "orders": 0.008, "orchestrator": 0.008}
"""What an order waits for the database; `make bench`: its statements by the driver alone take 11 ms."""


def costs() -> dict[str, Cost]:
    """What was measured of each service."""
    measured = json.loads(CAPACITY.read_text())["services"]
    return {
        service: Cost(
            measured[service]["cpu_ms"] / 1000, DATABASE_SECONDS[service], measured[service]["start_cpu_s"]
        )
        for service in SERVICES
    }


def ways() -> dict[str, dict[str, Scaling]]:
    """How the chart scales each service, by `hpa` and by `keda`."""
    options = {"hpa": (_MINIMAL,), "keda": (_MINIMAL, *_SWITCHED)}
    return {by: chart.scaling(chart.rendered(*options[by])) for by in WAYS}


def cases(scaled: Mapping[str, Mapping[str, Scaling]]) -> list[Case]:
    """The runs: with the chart as it is, with more pods from the start, and on nodes that are full."""
    shed, measured = Settings.model_fields["answer_timeout"].default, costs()
    made = []
    for by, scaling in scaled.items():
        doubled = {name: replace(one, minimum=2 * one.minimum) for name, one in scaling.items()}
        made += [
            Case(AS_IT_IS, by, scaling, measured, shed),
            Case("twice the minReplicas", by, doubled, measured, shed),
            Case(f"full nodes: {FULL:g} core a pod", by, scaling, measured, shed, FULL),
        ]
    return made


def numbers(scaled: Mapping[str, Mapping[str, Scaling]]) -> str:
    """What one pod can do, and what the chart makes of it."""
    hpa, keda, measured = scaled["hpa"], scaled["keda"], costs()
    lines = ["| | " + " | ".join(SERVICES) + " |", "|---|" + "---:|" * len(SERVICES)]

    def row(title: str, cells: Sequence[str]) -> None:
        lines.append(f"| {title} | " + " | ".join(cells) + " |")

    aimed = {name: hpa[name].request * hpa[name].target / 100 for name in SERVICES}
    rate = {name: aimed[name] / measured[name].cpu for name in SERVICES}
    row("CPU for an order, ms", [f"{1000 * measured[name].cpu:.1f}" for name in SERVICES])
    row("orders a second by one core", [f"{1 / measured[name].cpu:.0f}" for name in SERVICES])
    row("`resources.requests.cpu`", [f"{1000 * hpa[name].request:.0f}m" for name in SERVICES])
    row("`autoscaling.hpa.cpuUtilization`", [f"{hpa[name].target:g} %" for name in SERVICES])
    row("cores of a pod at that", [f"{aimed[name]:.2f}" for name in SERVICES])
    row("orders a second of a pod at that", [f"{rate[name]:.0f}" for name in SERVICES])
    row("`autoscaling.minReplicas`", [f"{hpa[name].minimum}" for name in SERVICES])
    row("`autoscaling.maxReplicas`", [f"{hpa[name].maximum}" for name in SERVICES])
    row("orders a second by all pods at that", [f"{hpa[name].maximum * rate[name]:.0f}" for name in SERVICES])
    row(
        "requests in flight in a pod at that",
        [f"{flying:.1f}" for flying in in_flight(rate, aimed, measured)],
    )
    row("`autoscaling.keda.inFlightPerPod`", [f"{keda[name].target:g}" for name in SERVICES])
    row("`db.poolSize`", [f"{hpa[name].pool}" for name in SERVICES])
    row("connections at most", [f"{connections(hpa[name])}" for name in SERVICES])
    return "\n".join(lines)


def in_flight(
    rate: Mapping[str, float], cores: Mapping[str, float], measured: Mapping[str, Cost]
) -> list[float]:
    """The mean number of requests in a pod that uses so much of a core, by Little's law.

    At work or waiting for the core there are `u / (1 - u)`; besides, an order waits for its database, and
    in the orchestrator for the other services, which are used as much.
    """
    there = {name: cores[name] / (1 - cores[name]) + rate[name] * measured[name].wait for name in SERVICES}
    others = sum(there[name] / rate[name] for name in SERVICES if name != "orchestrator")
    there["orchestrator"] += rate["orchestrator"] * others
    return [there[name] for name in SERVICES]


def connections(scaling: Scaling) -> int:
    """What its pods may open in an upgrade: each has its pool, and one connection for probes."""
    return (scaling.maximum + 1) * (scaling.pool + 1)


def surges(found: Sequence[tuple[Case, Outcome]]) -> str:
    """What came of each run."""
    lines = [
        "| by | with | new pods | keeps up | in 1 s | slowest | asked again | most pods | least again |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {WAYS[case.by]} | {case.name} | {_seconds(came.first)} | {_seconds(came.keeps_up)}"
        f" | {_seconds(came.in_time)} | {came.longest:.1f} s | {came.asked_again:,.0f} | {came.most}"
        f" | {'never' if came.back is None else f'{came.back / 60:.0f} min'} |"
        for case, came in found
    ]
    return "\n".join(lines)


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.0f} s"


def written(tables: Mapping[str, str]) -> str:
    """The text of the document with its marked tables replaced."""
    text = DOCUMENT.read_text()
    for name, table in tables.items():
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        if not begin or not end:
            raise SystemExit(f"{DOCUMENT.name} needs one place <!-- {name} --> … <!-- /{name} -->")
        text = f"{before}{begin}{table}\n{end}{after}"
    return text
