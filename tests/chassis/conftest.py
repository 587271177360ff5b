"""The sample service, with and without a real database."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from chassis.database import Database
from tests.chassis.sample import Settings, create_app, create_tables
from tests.client import Client, Serve
from tests.databases import MakeSettings, on_database

MakeApp = Callable[..., Awaitable[web.Application]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings for tests of what never gets as far as the database."""
    return Settings(**on_database(f"sqlite:///{tmp_path / 'sample.db'}"))


@pytest.fixture
async def client(settings: Settings, serve: Serve) -> Client:
    """The sample service for such tests."""
    return await serve(create_app(settings))


@pytest.fixture
async def database(make_settings: MakeSettings) -> AsyncIterator[Database]:
    """The database of the sample service, on both backends."""
    database = Database(make_settings(Settings))
    await create_tables(database)
    yield database
    await database.close()
