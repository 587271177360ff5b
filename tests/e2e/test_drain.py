"""A service is told to end while traffic still comes, as when Kubernetes deletes a pod: nobody notices.

A pod that ends is sent new connections for as long as kube-proxy takes to hear that it is not ready
any more, and what was begun may take longer than that. Each service is a process here, on MariaDB.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from chassis.settings import parse_database_url
from dev.ports import HOST
from dev.stack import Service, Stack, stack
from orchestrator.answers import JOB_PATH
from orchestrator.errors import SagaUnfinished
from orchestrator.models import UNFINISHED
from tests.client import Client, Reply, refused
from tests.databases import TOKEN, MariaDB, execute, one_each
from tests.orchestrator.shop import MEMBERS, Catalog, until

LAG_SECONDS = 1.5
"""How long new connections still come after a service became unready; DRAIN_SECONDS is 2."""
CALLERS = 2  # of each kind
PAUSE_SECONDS = 0.05
BUSY = 20  # answers before the end is asked for
SHUTDOWN_SECONDS = 6
"""Twice as long is more than `Service.terminate` waits before it kills."""

# One set of processes for all of them.
pytestmark = [pytest.mark.xdist_group("drain"), pytest.mark.asyncio(loop_scope="module")]
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
async def system(mariadb: MariaDB, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """The three services, running."""
    urls = one_each(mariadb, tmp_path_factory.mktemp("databases"))
    told = {
        "SERVICE_TOKEN": TOKEN,
        "SYNCHRONIZE": "false",
        "DRAIN_SECONDS": "2",
        "SAGA_LEASE": "120",  # longer than any test waits
        "SWEEP_EVERY": "0.2",
    }
    async with (
        stack(tmp_path_factory.mktemp("drained"), database_urls=urls, environment=told) as processes,
        _session() as session,
    ):
        catalog = Catalog(Client(session, processes.customers.port), Client(session, processes.orders.port))
        yield System(processes, urls, catalog)
        for service in processes:
            await service.kill()  # the end is no part of any test


@asynccontextmanager
async def _session(*, force_close: bool = False) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0, force_close=force_close)
    async with aiohttp.ClientSession(connector=connector) as session:
        AioHttpClientInstrumentor.uninstrument_session(session)  # a caller is none of our services
        yield session


# --- what its callers do ------------------------------------------------------------------------


@dataclass
class Traffic:
    """What callers of one service saw until nothing was sent to it any more."""

    send: Send
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
            await asyncio.sleep(PAUSE_SECONDS)


@asynccontextmanager
async def _coming(service: Service, send: Send) -> AsyncIterator[Traffic]:
    """Callers that keep their connections, and callers that have a new one for each request."""
    traffic = Traffic(send)
    async with _session() as kept, _session(force_close=True) as anew, asyncio.TaskGroup() as callers:
        for number in range(CALLERS):
            for kind, session in (("kept", kept), ("anew", anew)):
                name = f"{service.name}-{kind}-{number}"
                callers.create_task(traffic.call(Client(session, service.port), name))
        await traffic.busy.wait()
        yield traffic
        traffic.over.set()


async def _is_unready(service: Service) -> None:
    """Wait until its readiness says that it drains."""
    async with _session() as session:
        while True:
            reply = await Client(session, service.admin_port).get("/readyz")
            if reply.status == 503:
                assert reply.json == {"status": "not ready", "reason": "draining"}
                return
            await asyncio.sleep(0.01)


async def _refuses_connections(service: Service) -> None:
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
async def _locked(url: str, table: str, row: int) -> AsyncIterator[None]:
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


# --- what takes too long ------------------------------------------------------------------------


async def test_what_does_not_end_in_time_is_answered_and_given_to_another_replica(system: System) -> None:
    """One request waits for a saga that waits for a locked row; the handler of another one never ends."""
    await system.all_run()
    case, other = await _orchestrator(system), system.processes.orchestrator
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

    async with _session() as session:
        client = Client(session, service.port)
        async with _locked(*case.lock):
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
    assert _under_way(system) == 0


async def _is(system: System, key: str, state: str) -> bool:
    """Whether the saga of this key is in this state."""
    statement = f"SELECT id FROM sagas WHERE key_value = '{key}' AND {state}"  # noqa: S608 - our own names
    return execute(system.urls["orchestrator"], statement) != []


# --- the drain ----------------------------------------------------------------------------------


@pytest.mark.parametrize("prepare", [_orchestrator, _orders, _customers], ids=lambda each: each.__name__[1:])
async def test_a_service_that_ends_under_load_loses_no_request(
    system: System, prepare: Callable[[System], Awaitable[Case]]
) -> None:
    await system.all_run()
    case = await prepare(system)
    service: Service = getattr(system.processes, prepare.__name__[1:])

    async with _session() as session:
        async with _locked(*case.lock):
            slow = asyncio.create_task(case.slow(Client(session, service.port), f"{service.name}-slow"))
            async with _coming(service, case.send) as traffic:
                ending = asyncio.create_task(service.terminate())
                await _is_unready(service)
                traffic.unready.set()
                await asyncio.sleep(LAG_SECONDS)
            await _refuses_connections(service)
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
    assert _under_way(system) == 0


def _under_way(system: System) -> Any:
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
