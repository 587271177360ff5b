"""Figures of a run of the benchmark on their way into the document."""

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from bench.page import cli
from tests.databases import ROOT

MACHINE = {"cpu": "A CPU", "cpus": 2, "load_before": 0.1, "python": "3.11.7", "version": "11.4.2-MariaDB"}


def ended(**errors: int) -> dict[str, Any]:
    cpu = {"bench": 1.0, "orders": 2.3}
    return {"rate": 1234.5, "p50_ms": 6.25, "p99_ms": 10, "errors": errors, "cpu_ms": cpu}


def written(folder: Path, http: dict[str, Any]) -> tuple[Result, str]:
    row = {
        "operation": "find-one",
        "products": 1000,
        "clients": 8,
        "ratio": 0.5,
        "http": http,
        "driver": http,
    }
    results, page = folder / "bench.json", folder / "page.md"
    results.write_text(json.dumps({"machine": MACHINE, "settings": {"seconds": 4}, "rows": [row]}))
    page.write_text("Before\n<!-- figures -->\nold\n<!-- /figures -->\nAfter\n")
    result = CliRunner().invoke(cli, [str(results), "--page", str(page)])
    return result, page.read_text()


def test_the_figures_take_the_place_of_those_before(tmp_path: Path) -> None:
    result, page = written(tmp_path, ended())

    assert result.exit_code == 0
    assert page.startswith("Before\n<!-- figures -->\nA CPU, 2 CPUs (load before: 0.1)")
    assert page.endswith("<!-- /figures -->\nAfter\n")
    assert "old" not in page
    assert "| find-one | 1000 | 8 | 1,234 | 6.2 | 10.0 | 0.50 |" in page
    assert "| bench | orders |\n|---|---:|---:|\n| find-one | 1.00 | 2.30 |\n" in page


def test_figures_with_errors_are_not_written(tmp_path: Path) -> None:
    result, page = written(tmp_path, ended(TimeoutError=1))

    assert result.exit_code == 1
    assert "old" in page


def test_the_document_has_the_place() -> None:
    text = (ROOT / "docs" / "performance.md").read_text()

    assert text.count("<!-- figures -->\n") == text.count("<!-- /figures -->\n") == 1
