"""The table of alerts in docs/operations.md, from the rules and the runbooks."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
RULES = ROOT / "charts" / "b2b-orders" / "rules" / "alerts.yaml"


def rules() -> list[dict[str, Any]]:
    """The alerts as Prometheus has them, in the order of the file."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def table() -> str:
    """Each alert: whom it wakes, what it means, where it says what to do."""
    lines = ["| alert | severity | what it means | what to do |", "|---|---|---|---|"]
    for rule in rules():
        runbook = Path(rule["annotations"]["runbook"])
        severity, link = rule["labels"]["severity"], runbook.relative_to("docs")
        lines.append(
            f"| {rule['alert']} | {severity} | {_meaning(ROOT / runbook)} | [{runbook.stem}]({link}) |"
        )
    return "\n".join(lines)


def _meaning(runbook: Path) -> str:
    """The first sentence of what a runbook says it means."""
    text = runbook.read_text().partition("## What it means\n")[2].partition("\n## ")[0]
    first, end, _ = " ".join(text.split()).partition(". ")
    return f"{first}." if end else first
