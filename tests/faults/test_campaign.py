"""The short form of `make faults`: the cases that show most, each once.

`python -m tests.faults --short` shows the same with its table.
"""

import asyncio
import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
import uvloop
from rich.console import Console

import orchestrator
from chassis import migrations
from dev.mariadb import Server, private_server
from tests.faults import report
from tests.faults.campaign import Campaign, Case
from tests.faults.revisions import FOLDER
from tests.faults.run import Run, ScenarioFailed
from tests.faults.scenarios.all import CASES

SEED = 20_261_125
SHORT = [case for case in CASES if case.short]


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A MariaDB that can be killed."""
    with private_server(tmp_path_factory.mktemp("mariadb")) as started:
        yield started


def finished(cases: list[Case], server: Server, folder: Path) -> Campaign:
    """A campaign in which each of the cases had its turn."""
    campaign = Campaign(cases, SEED, seconds=600, once=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(campaign.run(server, folder, lambda _case, _result: None))
    return campaign


def test_the_short_campaign_finds_nothing(server: Server, tmp_path: Path) -> None:
    campaign = finished(SHORT, server, tmp_path)

    assert [violation for result in campaign.results for violation in result.violations] == []
    assert {result.case for result in campaign.results} == set(SHORT)
    assert {case.scenario for case in SHORT} == {case.scenario for case in CASES}
    assert all(result.sagas and result.orders and result.recoveries for result in campaign.results)


def test_every_revision_before_this_one_is_taken_up() -> None:
    folder = Path(orchestrator.__file__).parent / "migrations" / "versions"
    *before, head = sorted(file.name.partition("_")[0] for file in folder.glob("[0-9]*.py"))

    assert head == migrations.head("orchestrator")
    assert set(before) <= {file.stem for file in FOLDER.glob("*.sql")}


async def lose_a_unit(run: Run) -> None:
    """Ask for an order, and change stock behind the back of the ledger."""
    await run.ask(await run.world.basket(), run.key())
    statement = "UPDATE products SET stock = stock - 1"
    run.world.server.execute(f"USE {run.world.schema}; {statement}")


async def break_nothing(run: Run) -> None:
    """Say that what was to be broken was not."""
    raise ScenarioFailed(f"{run.name} broke nothing")


def test_what_a_case_broke_is_found_once_and_reported(server: Server, tmp_path: Path) -> None:
    cases = [Case("sabotage", "lost unit", lose_a_unit), Case("sabotage", "nothing broken", break_nothing)]

    campaign = finished(cases, server, tmp_path)
    report.write(tmp_path / "faults.json", campaign)
    shown = StringIO()
    report.show(Console(file=shown, width=160), campaign)

    found = json.loads((tmp_path / "faults.json").read_text())
    assert {name: many for name, many in found["violations"].items() if many} == {
        "reconcile_finds_nothing": 1,
        "the_case_happened": 1,
    }
    assert (found["runs"], found["orders"], found["seed"]) == (2, 1, SEED)
    assert found["command"] == f"make faults FAULTS_SEED={SEED} FAULTS_SECONDS=600"
    assert "reconcile_finds_nothing: product 1: stock 999998" in shown.getvalue()
    assert "broke nothing" in shown.getvalue()
