import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from sqlalchemy.engine import make_url

import customers.app
import orders.app
import orders.settings
from chassis import dialects, migrations, probes, schema
from customers.settings import Settings
from tests.client import HOST, Client, Serve, refused
from tests.databases import Databases, execute, on_database
from tests.observed import LogLines

CUSTOMER = {"name": "Globex", "email": "orders@globex.example"}
SECONDS = 30  # generous: what is waited for comes within one
only_mariadb = pytest.mark.parametrize("backend", ["mariadb"], indirect=True)


@pytest.fixture
def empty(databases: Databases, tmp_path: Path) -> str:
    """The URL of a database without any table."""
    return databases.empty(tmp_path)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tests of the second attempt not wait for it."""
    monkeypatch.setattr(schema, "LAST_PAUSE_SECONDS", 0.2)
    monkeypatch.setattr(schema, "BROKEN_PAUSE_SECONDS", 0.2)
    monkeypatch.setattr(probes, "CHECK_EVERY_SECONDS", -1)


def _create_app(url: str) -> web.Application:
    return customers.app.create_app(Settings(**{**on_database(url), "synchronize": True}))


async def _answer(client: Client, wanted: str) -> None:
    """Wait until readiness gives this reason, or says `ready`."""
    async with asyncio.timeout(SECONDS):
        while True:
            reply = await client.admin.get("/readyz")
            if reply.json.get("reason", reply.json["status"]) == wanted:
                return
            await asyncio.sleep(0.01)


def _said(log_lines: LogLines) -> list[str]:
    """What the log says of the schema, in a word each."""
    lines = [line for line in log_lines() if line["logger"] == "chassis.schema"]
    return [line["error.code"] if "error.code" in line else line["event"] for line in lines]


# --- a database that is not there ---------------------------------------------------------------


@asynccontextmanager
async def _away(backend: str, url: str) -> AsyncIterator[None]:
    """The database cannot be opened within the block: no such schema, no such file."""
    schema_name = url.rpartition("/")[2]
    if backend == "mariadb":
        server = url.removesuffix(schema_name)
        execute(server, f"DROP DATABASE {schema_name}")
        yield
        execute(server, f"CREATE DATABASE {schema_name}")
    else:
        path = Path(url.removeprefix("sqlite:///"))
        path.mkdir()  # noqa: ASYNC240 - it takes no time
        yield
        path.rmdir()  # noqa: ASYNC240 - as above


async def test_a_service_starts_without_its_database_and_is_ready_once_it_comes(
    backend: str, empty: str, serve: Serve, log_lines: LogLines
) -> None:
    async with _away(backend, empty):
        client = await serve(_create_app(empty))
        await _answer(client, "db.unavailable")
        probed = [(await client.admin.get(path)).status for path in ("/livez", "/startupz", "/readyz")]
        health = await client.get("/health")
        written = await client.post("/admin/customers/create-customer", CUSTOMER)
        index = await client.get("/")
        await asyncio.sleep(3 * schema.LAST_PAUSE_SECONDS)  # some attempts more

    await _answer(client, "ready")
    assert probed == [200, 200, 503]
    assert index.status == 200
    refused(health, 503, "db.unavailable")
    refused(written, 503, "db.unavailable")
    assert (await client.post("/admin/customers/create-customer", CUSTOMER)).status == 201
    assert _said(log_lines) == ["db.unavailable", "schema is up to date"]


@only_mariadb
async def test_a_service_finds_a_server_that_starts_after_it(
    empty: str, unused_tcp_port: int, serve: Serve
) -> None:
    url = make_url(empty)
    client = await serve(_create_app(url.set(port=unused_tcp_port).render_as_string(hide_password=False)))
    await _answer(client, "db.unavailable")

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(url.host, url.port)
        await asyncio.gather(_copy(reader, there[1]), _copy(there[0], writer))

    async with await asyncio.start_server(forward, HOST, unused_tcp_port):
        await _answer(client, "ready")
        assert (await client.post("/admin/customers/create-customer", CUSTOMER)).status == 201


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


# --- a migration that takes its time, or fails ---------------------------------------------------


@asynccontextmanager
async def _held(url: str) -> AsyncIterator[None]:
    """Another process migrates within the block."""
    settings = Settings(**on_database(url))
    async with (
        migrations.connected(settings) as connection,
        dialects.migration_lock(connection, "customers_migration", 1),
    ):
        await connection.exec_driver_sql("SELECT 1")  # on SQLite BEGIN IMMEDIATE, which is the lock
        yield


async def test_requests_are_refused_while_another_replica_migrates(
    empty: str, serve: Serve, log_lines: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "LOCK_SECONDS", 1)
    async with _held(empty):
        client = await serve(_create_app(empty))
        await _answer(client, "db.migrating")
        listed = await client.get("/admin/customers/find-all")
        while not _said(log_lines):  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)

    await _answer(client, "ready")
    refused(listed, 503, "db.migrating")
    assert (await client.get("/admin/customers/find-all")).status == 200
    assert _said(log_lines) == ["db.migrating", "schema is up to date"]


async def test_a_migration_that_fails_is_a_state_of_its_own_and_tried_again(
    empty: str, serve: Serve, log_lines: LogLines
) -> None:
    execute(empty, "CREATE TABLE orders (somebody_elses INTEGER)")
    settings = orders.settings.Settings(**{**on_database(empty), "synchronize": True})
    client = await serve(orders.app.create_app(settings))
    await _answer(client, "db.migration_failed")
    listed = await client.get("/admin/orders/find-all")
    probed = [(await client.admin.get(path)).status for path in ("/livez", "/startupz", "/readyz")]

    execute(empty, "DROP TABLE orders")

    await _answer(client, "ready")
    problem = refused(listed, 503, "db.migration_failed")
    assert "somebody" not in str(problem)  # the words of the database are for the log
    assert probed == [200, 200, 503]
    assert (await client.get("/admin/orders/find-all")).status == 200
    assert _said(log_lines) == ["db.migration_failed", "schema is up to date"]


async def test_replicas_that_start_together_migrate_once_and_all_get_ready(empty: str, serve: Serve) -> None:
    clients = await asyncio.gather(*(serve(_create_app(empty)) for _ in range(4)))

    for client in clients:
        await _answer(client, "ready")
        assert (await client.get("/admin/customers/find-all")).status == 200
    rows = execute(empty, "SELECT version_num FROM customers_alembic_version")
    assert rows == [(migrations.head("customers"),)]


# --- a schema that is newer than the code --------------------------------------------------------


async def test_a_release_works_on_the_schema_of_a_newer_one(
    empty: str, serve: Serve, log_lines: LogLines
) -> None:
    settings = Settings(**on_database(empty))
    await migrations.upgrade(settings)
    execute(  # what the next release might expand by
        empty,
        "ALTER TABLE customers ADD COLUMN segment VARCHAR(20) DEFAULT 'new'",
        "CREATE TABLE customers_segments (name VARCHAR(20) PRIMARY KEY)",
        "UPDATE customers_alembic_version SET version_num = '9999'",
    )

    client = await serve(_create_app(empty))
    await _answer(client, "ready")
    created = await client.post("/admin/customers/create-customer", CUSTOMER)
    changed = await client.patch(f"/admin/customers/update/{created.json['data']['id']}", {"name": "G"})

    assert (created.status, changed.status) == (201, 200)
    assert _said(log_lines) == ["schema is of a newer release"]
    assert await migrations.current(settings) == "9999"


async def test_a_schema_that_has_lost_what_the_code_needs_is_a_clear_refusal(
    empty: str, serve: Serve
) -> None:
    await migrations.upgrade(Settings(**on_database(empty)))
    execute(  # a release that contracted too early
        empty,
        "ALTER TABLE customers DROP COLUMN phone",
        "UPDATE customers_alembic_version SET version_num = '9999'",
    )

    client = await serve(_create_app(empty))
    await _answer(client, "ready")

    refused(await client.get("/admin/customers/find-all"), 503, "db.schema_outdated")
    refused(await client.post("/admin/customers/create-customer", CUSTOMER), 503, "db.schema_outdated")
    assert (await client.get("/")).status == 200
