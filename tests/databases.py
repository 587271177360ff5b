"""Databases for tests, the same for both backends: migrated once a session, empty for every test."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol, TypeVar

from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

import customers.settings
import orchestrator.settings
import orders.settings
from chassis import migrations
from chassis.settings import Settings, parse_database_url

ROOT = Path(__file__).parent.parent
TOKEN = "the-token-of-the-tests"

T = TypeVar("T")
S = TypeVar("S", bound=Settings)


class MakeSettings(Protocol):
    """The fixture `make_settings`: settings of a service on a fresh, migrated, empty database.

    Called again in the same test for the same service, it gives settings on the same database.
    """

    def __call__(self, settings_class: type[S], **overrides: Any) -> S: ...


class DatabaseUrl(Protocol):
    """The fixture `database_url`: where `make_settings` lets a service keep its data."""

    def __call__(self, settings_class: type[Settings]) -> str: ...


class Databases(Protocol):
    """Where databases come from."""

    def fresh(self, settings_class: type[Settings], folder: Path) -> str:
        """Prepare an empty, migrated database; return its URL. One a service and test."""
        ...

    def empty(self, folder: Path) -> str:
        """Prepare a database without any table, for one test; return its URL."""
        ...


def one_each(databases: Databases, folder: Path) -> dict[str, str]:
    """A fresh database for each of the three services, by its name."""
    classes = (customers.settings.Settings, orders.settings.Settings, orchestrator.settings.Settings)
    return {settings.service: databases.fresh(settings, folder) for settings in classes}


class SQLite:
    """Files: a migrated template for every service, and its copies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._templates: set[str] = set()

    def fresh(self, settings_class: type[Settings], folder: Path) -> str:
        name = f"{settings_class.service}.db"
        template = self._folder / name
        if name not in self._templates:
            with closing(sqlite3.connect(template)):
                pass
            migrate(settings_class, f"sqlite:///{template}")
            self._templates.add(name)
        shutil.copyfile(template, folder / name)
        return f"sqlite:///{folder / name}"

    def empty(self, folder: Path) -> str:
        return f"sqlite:///{folder / 'empty.db'}"


class MariaDB:
    """Schemas with names of their own on a server; what else is on it is left alone."""

    def __init__(self, server: URL) -> None:
        self._server = server
        self._prefix = f"b2b_test_{token_hex(4)}"
        self._schemas: set[str] = set()

    def fresh(self, settings_class: type[Settings], folder: Path) -> str:  # noqa: ARG002 - see Databases
        schema = f"{self._prefix}_{settings_class.service}"
        url = self._url(schema)
        if schema in self._schemas:
            blocking(_delete_rows(url))  # much faster than TRUNCATE or a new schema
        else:
            self._create(schema)
            migrate(settings_class, url)
        return url

    def empty(self, folder: Path) -> str:  # noqa: ARG002 - see Databases
        schema = f"{self._prefix}_empty"
        self._drop(schema)
        self._create(schema)
        return self._url(schema)

    def close(self) -> None:
        for schema in tuple(self._schemas):
            self._drop(schema)

    def _create(self, schema: str) -> None:
        execute(self._url(""), f"CREATE DATABASE `{schema}`")
        self._schemas.add(schema)

    def _drop(self, schema: str) -> None:
        execute(self._url(""), f"DROP DATABASE IF EXISTS `{schema}`")
        self._schemas.discard(schema)

    def _url(self, schema: str) -> str:
        return self._server.set(database=schema).render_as_string(hide_password=False)


def migrate(settings_class: type[Settings], url: str) -> None:
    """Bring a database up to date, if the service has migrations."""
    if (ROOT / settings_class.service / "migrations").is_dir():
        settings = settings_class(**on_database(url))
        blocking(migrations.upgrade(settings))


def on_database(url: str) -> dict[str, Any]:
    """Settings of a service on this database, on free ports of this machine, that stops at once."""
    return {
        "database_url": url,
        "auth": "off",
        "service_token": TOKEN,
        "synchronize": False,
        "host": "127.0.0.1",
        "port": 0,
        "admin_port": 0,
        "drain_seconds": 0,
        "shutdown_timeout": 5,
        "db_pool_timeout": 60,  # a slow machine makes tests slow, not red
    }


def execute(url: str, *statements: str) -> list[Sequence[Any]]:
    """Execute statements on a connection of their own and commit; return the rows of the last one."""
    return blocking(_execute(url, statements))


async def _execute(url: str, statements: Sequence[str]) -> list[Sequence[Any]]:
    async with _connection(url) as connection:
        results = [await connection.execute(text(statement)) for statement in statements]
        return list(results[-1].all()) if results[-1].returns_rows else []


async def _delete_rows(url: str) -> None:
    async with _connection(url) as connection:
        tables = (await connection.execute(text("SHOW TABLES"))).scalars().all()
        await connection.execute(text("SET foreign_key_checks = 0"))
        for table in tables:
            if not table.endswith("_version"):
                await connection.execute(text(f"DELETE FROM `{table}`"))  # noqa: S608 - as the server calls it


@asynccontextmanager
async def _connection(url: str) -> AsyncIterator[AsyncConnection]:
    """A connection with a transaction that is committed at the end."""
    engine = create_async_engine(parse_database_url(url), poolclass=NullPool)
    async with engine.begin() as connection:
        yield connection


def blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, in a thread: the test's own event loop may be running here."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
