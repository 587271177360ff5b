"""The benchmark itself: it measures every cell, and only what is right. Never how fast."""

import json
import subprocess
import sys
from pathlib import Path

from sqlalchemy.engine import URL

from tests.databases import ROOT
from tests.processes import environment

CELLS = [
    (operation, products, clients)
    for operation, counts in (
        ("find-one", (1000,)),
        ("create", (1000, 1)),
        ("confirm", (1000, 1)),
        ("create-and-confirm", (1000,)),
    )
    for products in counts
    for clients in (1, 8, 32)
]


def test_a_quick_run_measures_every_cell(mariadb_server: URL, tmp_path: Path) -> None:
    output = tmp_path / "bench.json"

    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "bench", "--quick", "--output", str(output)],
        cwd=ROOT,
        env=environment(TEST_DATABASE_URL=mariadb_server.render_as_string(hide_password=False)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    found = json.loads(output.read_text())
    assert [(row["operation"], row["products"], row["clients"]) for row in found["rows"]] == CELLS
    for row in found["rows"]:
        assert row["statements"] == len(found["statements"][row["operation"]])
        assert row["ratio"] >= 0
        for end in (row["http"], row["driver"]):
            assert end["errors"] == {}
            assert end["answers"] > 0  # a busy machine lets not every client send within the seconds
            assert 0 < end["p50_ms"] <= end["p99_ms"]
    assert found["machine"]["cpus"] > 0
    assert found["machine"]["version"].startswith(("10.", "11.", "12.", "8.", "9."))
    assert found["settings"] == {"seconds": 0.1, "log_level": "info", "db_pool_size": 10}
    for operation, _, _ in CELLS:
        assert f"│ {operation} " in done.stdout
