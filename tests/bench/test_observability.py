"""The benchmark of what being observed costs: it measures what it is told to. Never how much."""

import json
import subprocess
import sys
from pathlib import Path

from sqlalchemy.engine import URL

from tests.databases import ROOT
from tests.processes import environment


def test_what_is_chosen_has_its_turns_beside_the_baseline(mariadb_server: URL, tmp_path: Path) -> None:
    output = tmp_path / "found.json"
    options = ("0.1", "--turns", "2", "--seconds", "0.2", "--output", str(output))

    done = subprocess.run(  # noqa: S603 - our own command
        (sys.executable, "-m", "bench.observability", *options),
        cwd=ROOT,
        env=environment(TEST_DATABASE_URL=mariadb_server.render_as_string(hide_password=False)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(output.read_text())
    assert [one["tells"] for one in found] == [
        "nothing",
        "traces, 0.1",
        "everything, traces 0.1",
    ]
    for one in found:
        assert len(one["rates"]) == len(one["cpu_ms"]) == 2
        assert one["tells"] in done.stdout
