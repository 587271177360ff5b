"""What the cells are measured on: a schema with products, what each request sends, running services."""

import json
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from uuid import uuid4

import aiohttp
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from bench import machine
from bench.load import call
from bench.operations import CREATE, MANY, OPERATIONS, Site, Subject
from bench.recorder import Recorder, Recording
from bench.shop import Shop
from chassis.database import Database
from dev import calls
from dev.sample import CUSTOMER
from dev.stack import Stack, stack
from orders.settings import Settings

RECORDED_AFTER = 3
"""Requests before the recorded one: after them nothing is done for the first time."""


@dataclass(frozen=True, slots=True)
class Ground:
    """Where cells are measured.

    `original` is the order that others are copied from, `unconfirmed` the copies that no cell has used
    yet, by the number of products among them.
    """

    settings: Settings
    database: Database
    shop: Shop
    original: int
    recordings: Mapping[str, Recording]
    site: Site
    http: aiohttp.ClientSession
    services: Stack
    processes: Mapping[str, int]
    unconfirmed: dict[int, list[Subject]] = field(default_factory=lambda: defaultdict(list))


@asynccontextmanager
async def ground(server: URL, folder: Path) -> AsyncIterator[Ground]:
    """Run the services on a new schema of this server, with logs in `folder`.

    Raises:
        ServiceFailed, UnexpectedReply, Failed, Unreplayable: there is nothing to measure.

    """
    async with schema(server) as url, _database(url) as (settings, database):
        shop = Shop(database)
        customer_id, original, recordings = await _record(settings, folder / "recorded", shop)
        environment = _environment(settings)
        async with (
            stack(folder / "measured", database_urls=_shared(url), environment=environment) as services,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
        ):
            processes = {"bench": os.getpid()}
            processes |= {one.name: one.process.pid for one in services if one.process is not None}
            if (server_process := await machine.database_process(database)) is not None:
                processes["mariadbd"] = server_process
            site = _site(services, customer_id)
            yield Ground(settings, database, shop, original, recordings, site, http, services, processes)


async def _record(settings: Settings, folder: Path, shop: Shop) -> tuple[int, int, dict[str, Recording]]:
    """Migrate, fill the shop, record every operation; return a customer and an order, too."""
    recorder = Recorder(settings.sqlalchemy_url)
    # Nothing but the recorded request may send statements.
    quiet = {"SYNCHRONIZE": "true", "SWEEP_EVERY": "86400", "EXPIRE_EVERY": "86400"}
    environment = _environment(settings) | quiet
    async with (
        recorder.url() as url,
        stack(folder, database_urls=_shared(url), environment=environment) as services,
        aiohttp.ClientSession() as http,
    ):
        await shop.open()
        customers = f"{services.customers.url}/admin/customers/create-customer"
        customer_id = (await calls.post(http, customers, CUSTOMER, expect=(201,))).json["data"]["id"]
        site = _site(services, customer_id)
        recordings = {}
        first = next(shop.without_orders(MANY))
        original = json.loads(await call(http, CREATE, site, first, uuid4().hex))["data"]["id"]
        for operation in OPERATIONS:
            subjects = await shop.with_orders(original, MANY, RECORDED_AFTER + 1)
            recordings[operation.name] = await recorder.record(http, operation, site, subjects)
    return customer_id, original, recordings


def _environment(settings: Settings) -> dict[str, str]:
    """The services' own defaults, but what observes them and the size of their pools may be given."""
    return {
        **{name: value for name, value in os.environ.items() if name.startswith(("LOG_", "OTEL_"))},
        "DB_POOL_SIZE": str(settings.db_pool_size),
        "SERVICE_TOKEN": settings.service_token.get_secret_value(),
    }


def _shared(url: str) -> dict[str, str]:
    return dict.fromkeys(("customers", "orders", "orchestrator"), url)


def _site(services: Stack, customer_id: int) -> Site:
    return Site(services.orders.url, services.orchestrator.url, customer_id)


@asynccontextmanager
async def _database(url: str) -> AsyncIterator[tuple[Settings, Database]]:
    settings = Settings(database_url=url, auth="off", service_token=SecretStr(token_hex()))
    database = Database(settings)
    try:
        yield settings, database
    finally:
        await database.close()


@asynccontextmanager
async def schema(server: URL) -> AsyncIterator[str]:
    """A schema of its own, dropped at the end; what else is on the server is left alone."""
    name = f"b2b_bench_{token_hex(4)}"
    engine = create_async_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        async with engine.connect() as connection:
            await connection.execute(text(f"DROP DATABASE {name}"))
