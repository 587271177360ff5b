"""What helm says at the end of an install."""

import json
import re
import tempfile
from typing import Any

from tests.charts.examples import NEEDED
from tests.charts.rendering import NAME, NAMESPACE, UMBRELLA, helm


def notes(values: dict[str, Any]) -> str:
    """The notes of the umbrella chart with these values."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as given:
        given.write(json.dumps(values))
        given.flush()
        where = (NAME, str(UMBRELLA), f"--namespace={NAMESPACE}", f"--values={given.name}")
        return helm("install", *where, "--dry-run=client").stdout.partition("\nNOTES:\n")[2]


def first_order() -> list[str]:
    """The commands of the notes that make the first order, for who has forwarded the ports."""
    return re.findall(r"^  (curl (?:.*\\\n)*.*)$", notes(NEEDED), re.MULTILINE)
