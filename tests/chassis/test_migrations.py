import asyncio
import importlib
import itertools
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, MetaData, event
from sqlalchemy.engine import make_url

from chassis import dialects, migrations, mysql
from chassis.migrations import MigrationFailed
from chassis.settings import Settings
from tests.databases import ROOT, Databases, MakeSettings, execute, on_database
from tests.faults.proxy import Faults, proxy, to
from tests.observed import LogLines
from tests.processes import run, start, variables

SERVICES = sorted(path.parent.name for path in ROOT.glob("*/migrations"))
only_mariadb = pytest.mark.parametrize("backend", ["mariadb"], indirect=True)
every_service = pytest.mark.parametrize("service", SERVICES)


def _settings_class(service: str) -> type[Settings]:
    found: type[Settings] = importlib.import_module(f"{service}.settings").Settings
    return found


@pytest.fixture
def empty(databases: Databases, tmp_path: Path) -> str:
    """The URL of a database without any table."""
    return databases.empty(tmp_path)


async def _differences(settings: Settings) -> Any:
    """Between the models of a service and its database."""
    service = settings.service
    metadata: MetaData = importlib.import_module(f"{service}.models").Base.metadata
    engine = dialects.create_engine(settings.sqlalchemy_url, "writers", lock_timeout=5)

    def compare(connection: Connection) -> Any:
        options = {"version_table": f"{service}_alembic_version", "compare_type": True}
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    async with engine.connect() as connection:
        differences = await connection.run_sync(compare)
    await engine.dispose()
    return differences


@every_service
async def test_the_migrations_make_what_the_models_say(make_settings: MakeSettings, service: str) -> None:
    assert await _differences(make_settings(_settings_class(service))) == []


async def test_all_services_may_share_one_schema(empty: str) -> None:
    settings = [_settings_class(service)(**on_database(empty)) for service in SERVICES]

    revisions = [await migrations.upgrade(each) for each in settings]

    assert revisions == [migrations.head(service) for service in SERVICES]
    assert [await migrations.current(each) for each in settings] == revisions


@every_service
async def test_a_migration_that_was_interrupted_is_done_again(empty: str, service: str) -> None:
    settings = _settings_class(service)(**on_database(empty))
    await migrations.upgrade(settings)
    # As if it had been killed before this row.
    execute(empty, f"DELETE FROM {service}_alembic_version")  # noqa: S608 - our own names

    await migrations.upgrade(settings)

    assert await migrations.current(settings) == migrations.head(service)


@every_service
async def test_a_migration_that_ends_before_any_of_its_statements_is_done_again(
    empty: str, service: str
) -> None:
    settings = _settings_class(service)(**on_database(empty))
    interrupted = 0

    for allowed in itertools.count():
        with _ends_after(allowed), suppress(_Ended):
            await migrations.upgrade(settings)
            break
        interrupted += 1

    assert interrupted > 1
    assert await migrations.current(settings) == migrations.head(service)
    assert await _differences(settings) == []


class _Ended(BaseException):
    """The process has ended, as far as its migration can tell."""


@contextmanager
def _ends_after(allowed: int) -> Iterator[None]:
    """Let so many statements that change tables be sent, and no more."""
    sent = itertools.count()

    def end(_connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if statement.lstrip().startswith(("CREATE", "ALTER")) and next(sent) == allowed:
            raise _Ended

    event.listen(Engine, "before_cursor_execute", end)
    yield
    event.remove(Engine, "before_cursor_execute", end)


async def test_a_migration_that_was_killed_is_done_again_by_two_at_once(empty: str) -> None:
    settings = _settings_class("orders")(**on_database(empty))

    killed = run("orders", "migrate", **variables(empty, failpoints="schema.migrated=kill"))
    left = await migrations.current(settings)
    again = await asyncio.gather(*(migrations.upgrade(settings) for _ in range(2)))

    assert killed.returncode == -signal.SIGKILL
    assert not migrations.suffices(left, "orders")
    assert again == [migrations.head("orders")] * 2
    assert await _differences(settings) == []


async def test_the_schema_of_a_newer_release_is_left_alone(empty: str) -> None:
    settings = _settings_class("customers")(**on_database(empty))
    await migrations.upgrade(settings)
    execute(empty, "UPDATE customers_alembic_version SET version_num = '9999'")

    revision = await migrations.upgrade(settings)

    assert revision == await migrations.current(settings) == "9999"


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_the_command_migrates_and_can_say_whether_it_has_to(empty: str) -> None:
    given = variables(empty)

    before = run("customers", "migrate", "--check", **given)
    migrated = run("customers", "migrate", **given)
    after = run("customers", "migrate", "--check", **given)

    head = migrations.head("customers")
    assert (before.returncode, before.stdout) == (1, "")
    assert before.stderr == f"customers: schema at nothing, wants {head}: run python -m customers migrate\n"
    assert (migrated.returncode, migrated.stdout) == (0, f"customers: schema at {head}\n")
    assert (after.returncode, after.stdout) == (0, f"customers: schema at {head}, up to date\n")


def test_processes_that_migrate_at_once_migrate_once(empty: str) -> None:
    processes = [start("orders", "migrate", **variables(empty)) for _ in range(4)]

    ended = [(process.communicate()[1], process.returncode) for process in processes]

    assert [code for _, code in ended] == [0, 0, 0, 0], ended
    assert execute(empty, "SELECT version_num FROM orders_alembic_version") == [(migrations.head("orders"),)]


@only_mariadb
async def test_a_migration_waits_for_a_database_that_is_not_there_yet(
    empty: str, log_lines: LogLines
) -> None:
    schema = empty.rpartition("/")[2]
    server = empty.removesuffix(schema)
    execute(server, f"DROP DATABASE {schema}")

    migrating = asyncio.create_task(migrations.upgrade(_settings_class("customers")(**on_database(empty))))
    async with asyncio.timeout(60):
        while not log_lines():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)
    execute(server, f"CREATE DATABASE {schema}")

    assert await migrating == migrations.head("customers")
    assert {line["event"] for line in log_lines()} == {"waiting for the database"}


async def test_a_database_that_never_answers_is_a_reason_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "WAIT_SECONDS", 0)
    url = "mysql://root:hunter2@127.0.0.1:1/nothing"

    with pytest.raises(MigrationFailed, match=r"^no connection to ") as failed:
        await migrations.upgrade(_settings_class("customers")(**on_database(url)))

    assert "\n" not in str(failed.value)
    assert "hunter2" not in str(failed.value)


@only_mariadb
@pytest.mark.parametrize("moment", ["connected", "locking"])
async def test_a_database_that_falls_silent_before_a_migration_is_a_reason_in_one_line(
    empty: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_url(empty)
    monkeypatch.setattr(migrations, "WAIT_SECONDS", 0)
    monkeypatch.setattr(migrations, "LOCK_SECONDS", 0)
    monkeypatch.setattr(migrations, "ANSWER_SECONDS", 0.5)
    async with proxy("database", to(url.port or 0), seed=1) as link:
        settings = _settings_class("customers")(
            **on_database(url.set(port=link.port).render_as_string(hide_password=False))
        )

        async def connect(**options: Any) -> Any:
            connection = await mysql.connect(**options)
            link.faults = Faults(black_hole=True)
            return connection

        migration_lock = dialects.migration_lock

        def lock(*arguments: Any) -> Any:
            link.faults = Faults(black_hole=True)
            return migration_lock(*arguments)

        if moment == "connected":
            monkeypatch.setattr(dialects, "connect", connect)
        else:
            monkeypatch.setattr(dialects, "migration_lock", lock)

        async with asyncio.timeout(30):
            with pytest.raises(MigrationFailed, match=r"^no answer from mysql"):
                await migrations.upgrade(settings)


def test_the_command_that_waits_for_its_database_can_be_ended() -> None:
    given = variables("mysql://root@127.0.0.1:1/nothing")

    with start("customers", "migrate", **given) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        process.terminate()
        errors = process.communicate()[1]

    assert "waiting for the database" in said
    assert (process.returncode, errors) == (128 + signal.SIGTERM, "")


@only_mariadb
async def test_a_migration_that_another_process_does_not_finish_is_given_up(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _settings_class("customers")(**on_database(empty))
    engine = dialects.create_engine(settings.sqlalchemy_url, "readers", lock_timeout=5)
    monkeypatch.setattr(migrations, "WAIT_SECONDS", 1)

    async with engine.connect() as other, dialects.migration_lock(other, "customers_migration", 1):
        with pytest.raises(MigrationFailed, match="another process holds the migration lock"):
            await migrations.upgrade(settings)
    await engine.dispose()


def test_revisions_are_numbered_and_chained() -> None:
    for service in SERVICES:
        files = sorted(path.name for path in (ROOT / service / "migrations" / "versions").glob("*.py"))
        assert all(re.fullmatch(r"\d{4}_[a-z_]+\.py", name) for name in files), files
        assert files[-1].startswith(migrations.head(service))
