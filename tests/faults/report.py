"""The table and faults.json."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.faults.campaign import Campaign, Result
from tests.faults.invariants import INVARIANTS


def line(result: Result) -> str:
    """A run, while others are still to come."""
    found = Counter(violation.invariant for violation in result.violations)
    verdict = ", ".join(f"{many} x {name}" for name, many in found.items()) or "ok"
    slowest = f", recovered in {max(result.recoveries):.1f} s" if result.recoveries else ""
    return (
        f"{result.case.scenario}: {result.case.name}: {result.sagas} sagas, {result.orders} orders, "
        f"{result.kills} kills{slowest}: {verdict}"
    )


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """The figures of some runs; recovery is seconds from the last fault to the end of each saga it hit."""
    violations = Counter(violation.invariant for result in results for violation in result.violations)
    recoveries = sorted(recovery for result in results for recovery in result.recoveries)
    return {
        "runs": len(results),
        "sagas": sum(result.sagas for result in results),
        "orders": sum(result.orders for result in results),
        "kills": sum(result.kills for result in results),
        "needs_attention": sum(result.needs_attention for result in results),
        "violations": {name: violations[name] for name in _named(violations)},
        "recovery": {
            "sagas": len(recoveries),
            "p50": percentile(recoveries, 0.50),
            "p99": percentile(recoveries, 0.99),
            "max": recoveries[-1] if recoveries else None,
        },
    }


def write(file: Path, campaign: Campaign) -> None:
    """Write everything as JSON."""
    by_scenario = _by_scenario(campaign.results)
    content = {
        "seed": campaign.seed,
        "seconds": campaign.seconds,
        "command": f"make faults FAULTS_SEED={campaign.seed} FAULTS_SECONDS={campaign.seconds:g}",
        **summary(campaign.results),
        "scenarios": {scenario: summary(results) for scenario, results in by_scenario.items()},
        "left_out": [f"{case.scenario}: {case.name}" for case in campaign.left_out],
        "cases": [
            {
                "scenario": result.case.scenario,
                "case": result.case.name,
                "run": result.run,
                "seconds": round(result.seconds, 2),
                "sagas": result.sagas,
                "orders": result.orders,
                "kills": result.kills,
                "violations": [f"{each.invariant}: {each.found}" for each in result.violations],
            }
            for result in campaign.results
        ],
    }
    file.write_text(json.dumps(content, indent=2) + "\n")


def show(console: Console, campaign: Campaign) -> None:
    """Print what was found."""
    table = Table(title=f"Faults, seed {campaign.seed}")
    table.add_column("scenario")
    for heading in ("runs", "sagas", "orders", "kills", "violations", "recovery p50 s", "p99 s"):
        table.add_column(heading, justify="right")
    rows = {**_by_scenario(campaign.results), "all": campaign.results}
    for scenario, results in rows.items():
        if scenario == "all":
            table.add_section()
        found = summary(results)
        counts = [found[name] for name in ("runs", "sagas", "orders", "kills")]
        recovery = [found["recovery"][name] for name in ("p50", "p99")]
        table.add_row(
            scenario,
            *map(str, counts),
            str(sum(found["violations"].values())),
            *("-" if seconds is None else f"{seconds:.1f}" for seconds in recovery),
        )
    console.print(table)
    invariants = Table(title="Violations")
    invariants.add_column("invariant")
    invariants.add_column("found", justify="right")
    for name, many in summary(campaign.results)["violations"].items():
        invariants.add_row(name, str(many))
    console.print(invariants)
    for result in campaign.results:
        for violation in result.violations:
            console.print(
                f"{result.run} ({result.case.name}): {violation.invariant}: {violation.found}", markup=False
            )
    if campaign.left_out:
        console.print(f"No time was left for {len(campaign.left_out)} cases: give more with FAULTS_SECONDS.")


def percentile(ordered: Sequence[float], part: float) -> float | None:
    """The value that so large a part does not exceed; None if there is none."""
    return round(ordered[min(len(ordered) - 1, int(part * len(ordered)))], 2) if ordered else None


def _named(violations: Iterable[str]) -> list[str]:
    """Every invariant, and what only scenarios look for."""
    return list(dict.fromkeys([*(check.__name__ for check in INVARIANTS), *violations]))


def _by_scenario(results: Sequence[Result]) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda result: result.case.scenario):
        found.setdefault(result.case.scenario, []).append(result)
    return found
