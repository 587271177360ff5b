"""The benchmark of what a pod can do: it measures what it is told to. Never how much."""

import json
import subprocess
import sys
from pathlib import Path

from sqlalchemy.engine import URL

from tests.databases import ROOT
from tests.processes import environment


def test_a_service_is_measured_with_few_and_many_clients(mariadb_server: URL, tmp_path: Path) -> None:
    output = tmp_path / "found.json"
    options = ("customers", "--turns=1", "--seconds=0.1", f"--output={output}")

    done = subprocess.run(  # noqa: S603 - our own command
        (sys.executable, "-m", "bench.capacity", *options),
        cwd=ROOT,
        env=environment(TEST_DATABASE_URL=mariadb_server.render_as_string(hide_password=False)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(output.read_text())
    assert [(cell["service"], cell["clients"]) for cell in found["cells"]] == [
        ("customers", clients) for clients in (1, 2, 4, 8, 16)
    ]
    assert list(found["services"]) == ["customers"]
    assert all(value > 0 for value in found["services"]["customers"].values())
