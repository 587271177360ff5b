"""A new release is rolled out while traffic comes: nobody notices.

Its migrations run while the old one serves, and goes on serving on the new schema. Then pods are told
to end. One that ends is sent new connections for as long as kube-proxy takes to hear that it is not
ready any more, and what was begun may take longer than that.
"""

# ruff: noqa: F401, F811 - fixtures are imported, and found by their names

import asyncio
import shutil
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from chassis import migrations
from chassis.probes import CHECK_EVERY_SECONDS
from dev.stack import Service
from orchestrator.errors import SagaUnfinished
from tests.client import Client, refused
from tests.databases import ROOT, execute
from tests.e2e.rollout import (
    PREPARE,
    System,
    coming,
    is_unready,
    locked_row,
    open_session,
    refuses_connections,
    system,
    under_way,
)
from tests.orchestrator.shop import MEMBERS, until

LAG_SECONDS = 1.5
"""How long new connections still come after a service became unready; DRAIN_SECONDS is 2."""
SHUTDOWN_SECONDS = 6
"""Twice as long is more than `Service.terminate` waits before it kills."""
CALLERS = 2  # of each kind
NEXT = """
import sqlalchemy as sa
from alembic import op
from chassis import migrations

revision = "9001"
down_revision = "{head}"


def upgrade() -> None:
    op.create_table("{table}_next", sa.Column("name", sa.String(20), primary_key=True), if_not_exists=True)
    migrations.add_column("{table}", sa.Column("next_note", sa.String(20)))
    migrations.add_column("{table}", sa.Column("next_count", sa.Integer, nullable=False, server_default="0"))
    migrations.create_index("ix_{table}_next", "{table}", ["next_count"])
"""
TABLES = {"customers": "customers", "orders": "orders", "orchestrator": "sagas"}
VERSION = "SELECT version_num FROM {}_alembic_version"
# One set of processes for all of them.
pytestmark = [pytest.mark.xdist_group("rollout"), pytest.mark.asyncio(loop_scope="module")]


# --- the migrations of the next release ---------------------------------------------------------


async def test_services_go_on_and_start_on_the_schema_of_the_next_release(
    system: System, tmp_path: Path
) -> None:
    await system.all_run()
    release = _next_release(tmp_path)
    cases = [await PREPARE[service.name](system) for service in system.processes]

    async with AsyncExitStack() as stack:
        traffic = [
            await stack.enter_async_context(coming(service, case.send, callers=1, pause=0.3))
            for service, case in zip(system.processes, cases, strict=True)
        ]
        migrated = await asyncio.gather(
            *(asyncio.to_thread(_migrate, release, service) for service in system.processes)
        )
        sent = [len(each.replies) for each in traffic]
        await asyncio.sleep(CHECK_EVERY_SECONDS + 0.2)  # readiness remembers what it knew
        ready = [await _readiness(service) for service in system.processes]
    await system.processes.orders.kill()
    await system.processes.orders.start()
    async with open_session() as session:
        ordered = await cases[2].send(
            Client(session, system.processes.orchestrator.port), "on-the-next-schema"
        )

    assert [(each.returncode, each.stderr) for each in migrated] == [(0, "")] * 3
    assert [execute(system.urls[name], VERSION.format(name)) for name in TABLES] == [[("9001",)]] * 3
    assert [each.errors for each in traffic] == [[]] * 3
    assert {reply.status for each in traffic for reply in each.replies} == {201}
    assert all(len(each.replies) > before for each, before in zip(traffic, sent, strict=True))
    assert ready == [200] * 3
    assert ordered.status == 201, ordered.text


def _next_release(folder: Path) -> Path:
    """This release with a migration more for each service, which expands the table that it writes most."""
    for name in ("chassis", *TABLES):
        shutil.copytree(ROOT / name, folder / name)
    for service, table in TABLES.items():
        text = NEXT.format(head=migrations.head(service), table=table)
        (folder / service / "migrations" / "versions" / "9001_next.py").write_text(text)
    return folder


def _migrate(release: Path, service: Service) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603 - our own command
        (sys.executable, "-m", service.name, "migrate"),
        cwd=release,
        env=service.environment,
        capture_output=True,
        text=True,
        check=False,
    )


async def _readiness(service: Service) -> int:
    async with open_session() as session:
        return (await Client(session, service.admin_port).get("/readyz")).status


# --- what takes too long ------------------------------------------------------------------------


async def test_what_does_not_end_in_time_is_answered_and_given_to_another_replica(system: System) -> None:
    """One request waits for a saga that waits for a locked row; the handler of another one never ends."""
    await system.all_run()
    case, other = await PREPARE["orchestrator"](system), system.processes.orchestrator
    told = {
        "FAILPOINTS": "saga.answered=wait(600)",
        "DRAIN_SECONDS": "0",
        "SHUTDOWN_TIMEOUT": str(SHUTDOWN_SECONDS),
        "PEER_TIMEOUT": "20",
        "PEER_DEADLINE": "20",
    }
    service = other.replica()
    service.environment = {**service.environment, **told}
    await service.start()

    async with open_session() as session:
        client = Client(session, service.port)
        async with locked_row(*case.lock):
            stuck = asyncio.create_task(case.send(client, "stuck"))
            await until(lambda: _is(system, "stuck", "status = 'SUCCEEDED'"))
            late = asyncio.create_task(case.slow(client, "late"))
            await until(lambda: _is(system, "late", "step = 'create_order'"))
            exit_code = await service.terminate()
            with pytest.raises(aiohttp.ClientError):
                await stuck
            unfinished = await late
            await until(lambda: _is(system, "late", "lease_token = 2"))
        client = Client(session, other.port)
        repeated = [await case.send(client, "stuck"), await case.slow(client, "late")]

    assert exit_code == 0
    problem = refused(unfinished, 503, SagaUnfinished.code, *MEMBERS)
    assert problem["saga"] == unfinished.headers["Location"]
    assert [reply.status for reply in repeated] == [201, 201]
    assert repeated[0].headers["Idempotent-Replayed"] == "true"
    assert under_way(system) == 0


async def _is(system: System, key: str, state: str) -> bool:
    """Whether the saga of this key is in this state."""
    statement = f"SELECT id FROM sagas WHERE key_value = '{key}' AND {state}"  # noqa: S608 - our own names
    return execute(system.urls["orchestrator"], statement) != []


# --- the drain ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["orchestrator", "orders", "customers"])
async def test_a_service_that_ends_under_load_loses_no_request(system: System, name: str) -> None:
    await system.all_run()
    case = await PREPARE[name](system)
    service: Service = getattr(system.processes, name)

    async with open_session() as session:
        async with locked_row(*case.lock):
            slow = asyncio.create_task(case.slow(Client(session, service.port), f"{service.name}-slow"))
            async with coming(service, case.send, callers=CALLERS) as traffic:
                ending = asyncio.create_task(service.terminate())
                await is_unready(service)
                traffic.unready.set()
                await asyncio.sleep(LAG_SECONDS)
            await refuses_connections(service)
            assert not slow.done()
        answered_late = await slow
    exit_code = await ending

    assert traffic.errors == []
    assert {reply.status for reply in traffic.replies} == {201}
    assert len(traffic.while_unready) >= 2 * CALLERS
    assert {reply.headers.get("Connection") for reply in traffic.while_unready} == {"close"}
    assert answered_late.status in (200, 201), answered_late.text
    assert answered_late.headers["Connection"] == "close"
    assert exit_code == 0
    assert under_way(system) == 0
