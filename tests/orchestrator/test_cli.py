"""`python -m orchestrator sagas` and `purge`: once as a process, as operators run it, else in this one."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from orchestrator.__main__ import cli
from orchestrator.settings import Settings
from tests.databases import Databases, DatabaseUrl
from tests.orchestrator.shop import Replica, Shop, ended_days_ago
from tests.processes import run, variables

UNKNOWN = {"customer_id": 999, "items": [{"product_id": 1, "qty": 1}]}


async def sagas(url: str, *arguments: str) -> Result:
    """Run the command in a thread: it brings its own event loop."""
    return await asyncio.to_thread(CliRunner().invoke, cli, ["sagas", *arguments], env=variables(url))


def rows(table: str) -> list[list[str]]:
    """The cells below the heading of a table."""
    return [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in table.splitlines()
        if line.startswith("│")
    ]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_the_command_is_a_process_of_its_own(orchestrator: Replica, database_url: DatabaseUrl) -> None:
    saga_id = (await orchestrator.job(UNKNOWN)).json["saga_id"]

    ended = run("orchestrator", "sagas", **variables(database_url(Settings)))

    assert (ended.returncode, ended.stderr) == (0, "")
    assert [row[0] for row in rows(ended.stdout)] == [saga_id]


async def test_sagas_are_listed_with_their_state_and_their_last_step(
    shop: Shop, orchestrator: Replica, database_url: DatabaseUrl
) -> None:
    done = await orchestrator.job(await shop.basket(), key="key-1", X_Correlation_Id="req-1")
    failed = await orchestrator.job(UNKNOWN, key="key-2", X_Correlation_Id="req-2")

    listed = await sagas(database_url(Settings))

    assert (listed.exit_code, listed.stderr) == (0, "")
    newest, oldest = rows(listed.stdout)
    assert newest[:5] == [failed.json["saga_id"], "FAILED", "", "validate_customer refused", "1"]
    assert oldest[:5] == [done.json["saga_id"], "SUCCEEDED", "", "confirm_order done", "1"]
    assert (newest[6], oldest[6]) == ("req-2", "req-1")


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_sagas_are_filtered_by_their_state_and_limited(
    orchestrator: Replica, database_url: DatabaseUrl
) -> None:
    started = [(await orchestrator.job(UNKNOWN, key=f"key-{n}")).json["saga_id"] for n in range(3)]
    url = database_url(Settings)

    failed = await sagas(url, "--status", "FAILED", "--limit", "2")
    stuck = await sagas(url, "--status", "NEEDS_ATTENTION")

    assert [row[0] for row in rows(failed.stdout)] == [started[2], started[1]]
    assert (stuck.exit_code, stuck.stdout) == (0, "no sagas\n")


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_saga_that_needs_attention_says_why(shop: Shop, database_url: DatabaseUrl) -> None:
    body = await shop.basket()
    orchestrator = await shop.replica(peer_deadline=0.1, saga_attempts=1, sweep_every=0.05)
    shop.to_orders.down = True
    await orchestrator.ended((await orchestrator.job(body)).json["saga_id"])

    listed = await sagas(database_url(Settings))

    (row,) = rows(listed.stdout)
    assert row[1:5] == ["NEEDS_ATTENTION", "create_order", "create_order unavailable", "2"]
    assert row[-1] == "No end after 1 attempts."


async def test_a_database_without_the_schema_is_one_line(databases: Databases, tmp_path: Path) -> None:
    ended = await sagas(databases.empty(tmp_path))

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr == (
        "orchestrator: The database schema is not what this release needs; run the command migrate.\n"
    )


@pytest.mark.parametrize("arguments", [("--status", "DONE"), ("--limit", "0"), ("--limit", "101")])
async def test_what_is_no_filter_is_refused(arguments: Any, tmp_path: Path) -> None:
    ended = await sagas(f"sqlite:///{tmp_path / 'none.db'}", *arguments)

    assert ended.exit_code == 2
    assert arguments[0] in ended.stderr


async def test_purge_forgets_keys_and_sagas_when_their_days_are_over(
    orchestrator: Replica, database_url: DatabaseUrl
) -> None:
    started = [(await orchestrator.job(UNKNOWN, key=f"key-{n}")).json["saga_id"] for n in range(3)]
    await ended_days_ago(orchestrator.database, started[0], 91)
    await ended_days_ago(orchestrator.database, started[1], 8)
    url = database_url(Settings)

    ended = [
        await asyncio.to_thread(CliRunner().invoke, cli, ["purge"], env=variables(url)) for _ in range(2)
    ]

    assert [(one.exit_code, one.output) for one in ended] == [
        (0, "orchestrator: 2 idempotency key(s), 1 saga(s) forgotten\n"),
        (0, "orchestrator: 0 idempotency key(s), 0 saga(s) forgotten\n"),
    ]
    assert [row[0] for row in rows((await sagas(url)).stdout)] == [started[2], started[1]]
