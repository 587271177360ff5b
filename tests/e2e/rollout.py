"""The three services as processes on MariaDB, the traffic that comes to them, and what holds them up."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from chassis.settings import parse_database_url
from dev.ports import HOST
from dev.stack import Service, Stack, stack
from orchestrator.answers import JOB_PATH
from orchestrator.models import UNFINISHED
from tests.client import Client, Reply
from tests.databases import TOKEN, MariaDB, execute, one_each
from tests.orchestrator.shop import Catalog

BUSY = 10  # answers before anything is done to the service
Send = Callable[[Client, str], Coroutine[Any, Any, Reply]]


@dataclass(frozen=True)
class System:
    """The three processes, and where their data is."""

    processes: Stack
    urls: dict[str, str]
    catalog: Catalog

    async def all_run(self) -> None:
        """Start what another test has ended."""
        for service in self.processes:
            if not service.is_running:
                await service.start()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(mariadb_server: URL, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """The three services, running; what becomes of their schemas is seen by no other test."""
    schemas = MariaDB(mariadb_server)
    urls = one_each(schemas, tmp_path_factory.mktemp("databases"))
    told = {
        "SERVICE_TOKEN": TOKEN,
        "SYNCHRONIZE": "false",
        "DRAIN_SECONDS": "2",
        "SAGA_LEASE": "120",  # longer than any test waits
        "SWEEP_EVERY": "0.2",
    }
    async with (
        stack(tmp_path_factory.mktemp("drained"), database_urls=urls, environment=told) as processes,
        open_session() as session,
    ):
        catalog = Catalog(Client(session, processes.customers.port), Client(session, processes.orders.port))
        yield System(processes, urls, catalog)
        for service in processes:
            await service.kill()  # the end is no part of any test
    schemas.close()


@asynccontextmanager
async def open_session(*, force_close: bool = False) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0, force_close=force_close)
    async with aiohttp.ClientSession(connector=connector) as session:
        AioHttpClientInstrumentor.uninstrument_session(session)  # a caller is none of our services
        yield session


# --- what its callers do ------------------------------------------------------------------------


@dataclass
class Traffic:
    """What callers of one service saw until nothing was sent to it any more."""

    send: Send
    pause: float
    replies: list[Reply] = field(default_factory=list)
    while_unready: list[Reply] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    busy: asyncio.Event = field(default_factory=asyncio.Event)
    unready: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def call(self, client: Client, name: str) -> None:
        """Send one request after the other."""
        for number in itertools.count():
            if self.over.is_set():
                return
            asked_unready = self.unready.is_set()
            try:
                reply = await self.send(client, f"{name}-{number}")
            except (aiohttp.ClientError, OSError) as error:
                self.errors.append(error)
            else:
                self.replies.append(reply)
                if asked_unready:
                    self.while_unready.append(reply)
            if len(self.replies) == BUSY:
                self.busy.set()
            await asyncio.sleep(self.pause)


@asynccontextmanager
async def coming(
    service: Service, send: Send, *, callers: int, pause: float = 0.05
) -> AsyncIterator[Traffic]:
    """So many callers that keep their connections, and as many that have a new one for each request."""
    traffic = Traffic(send, pause)
    async with open_session() as kept, open_session(force_close=True) as anew, asyncio.TaskGroup() as calling:
        for number in range(callers):
            for kind, session in (("kept", kept), ("anew", anew)):
                name = f"{service.name}-{kind}-{number}-{token_hex(4)}"
                calling.create_task(traffic.call(Client(session, service.port), name))
        await traffic.busy.wait()
        yield traffic
        traffic.over.set()


async def is_unready(service: Service) -> None:
    """Wait until its readiness says that it drains."""
    async with open_session() as session:
        while True:
            reply = await Client(session, service.admin_port).get("/readyz")
            if reply.status == 503:
                assert reply.json == {"status": "not ready", "reason": "draining"}
                return
            await asyncio.sleep(0.01)


async def refuses_connections(service: Service) -> None:
    """Wait until it does not listen any more."""
    while True:
        try:
            _, writer = await asyncio.open_connection(HOST, service.port)
        except ConnectionRefusedError:
            return
        writer.close()
        await asyncio.sleep(0.05)


# --- what a service is busy with ----------------------------------------------------------------


@asynccontextmanager
async def locked_row(url: str, table: str, row: int) -> AsyncIterator[None]:
    """Another transaction has the row; whoever needs it waits."""
    engine = create_async_engine(parse_database_url(url), poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.execute(text(f"SELECT id FROM {table} WHERE id = {row} FOR UPDATE"))  # noqa: S608 - ours
        yield
        await connection.rollback()


@dataclass(frozen=True)
class Case:
    """What is sent to a service, and a request that waits for a locked row."""

    send: Send
    slow: Send
    lock: tuple[str, str, int]


async def _customers(system: System) -> Case:
    locked = await system.catalog.customer()

    def send(client: Client, name: str) -> Coroutine[Any, Any, Reply]:
        body = {"name": name, "email": f"{name}@example.com"}
        return client.post("/admin/customers/create-customer", body)

    def slow(client: Client, name: str) -> Coroutine[Any, Any, Reply]:
        return client.patch(f"/admin/customers/update/{locked['id']}", {"name": name})

    return Case(send, slow, (system.urls["customers"], "customers", locked["id"]))


async def _orders(system: System) -> Case:
    return await _ordering(system, "/admin/orders/create-order")


async def _orchestrator(system: System) -> Case:
    return await _ordering(system, JOB_PATH)


async def _ordering(system: System, path: str) -> Case:
    usual, locked = await system.catalog.basket(stock=10_000), await system.catalog.basket()

    def send(client: Client, name: str) -> Coroutine[Any, Any, Reply]:
        return client.post(path, usual, headers={"Idempotency-Key": name})

    def slow(client: Client, name: str) -> Coroutine[Any, Any, Reply]:
        return client.post(path, locked, headers={"Idempotency-Key": name})

    return Case(send, slow, (system.urls["orders"], "products", locked["items"][0]["product_id"]))


PREPARE = {"customers": _customers, "orders": _orders, "orchestrator": _orchestrator}


# --- what is left ---------------------------------------------------------------------------------


def under_way(system: System) -> Any:
    """Sagas that are not over, and keys without an answer."""
    states = ", ".join(f"'{status}'" for status in UNFINISHED)
    [[sagas]] = execute(
        system.urls["orchestrator"],
        f"SELECT count(*) FROM sagas WHERE status IN ({states})",  # noqa: S608 - our own names
    )
    return sagas + sum(
        execute(
            system.urls[service],
            f"SELECT count(*) FROM {service}_idempotency_keys WHERE completed_at IS NULL",  # noqa: S608 - as above
        )[0][0]
        for service in ("orders", "orchestrator")
    )
