"""Clocks that jump by an hour: the database's, by which all goes, and the services', which nothing heeds."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import pytest
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor

import customers.settings
import orchestrator.settings
import orders.settings
from chassis.database import Database
from chassis.settings import parse_database_url
from dev.mariadb import private_server
from dev.stack import stack
from orders.reconcile import find_discrepancies
from tests.client import Client, Reply, Serve, refused
from tests.clocks import Clock
from tests.databases import TOKEN, Databases, MariaDB, S, execute, on_database
from tests.orchestrator.shop import Catalog, Orchestrator, Shop, open_shop
from tests.orchestrator.wire import Held

HOUR = 3600
SERVICES = (customers.settings.Settings, orders.settings.Settings, orchestrator.settings.Settings)


async def _nothing_is_off(url: str) -> None:
    database = Database(orders.settings.Settings(**on_database(url)))
    try:
        assert await find_discrepancies(database) == []
    finally:
        await database.close()


# --- the clock of the database ------------------------------------------------------------------


@dataclass(frozen=True)
class Clocked:
    """A MariaDB with a clock of its own."""

    clock: Clock
    schemas: MariaDB


@pytest.fixture(scope="module")
def clocked() -> Iterator[Clocked]:
    """See Clocked."""
    with TemporaryDirectory(prefix="b2b-clocks-") as folder:
        clock = Clock(Path(folder))
        with private_server(Path(folder), environment=clock.environment) as server:
            yield Clocked(clock, MariaDB(parse_database_url(server.url(""))))


@pytest.fixture
def clock(clocked: Clocked) -> Iterator[Clock]:
    """Its clock, which is right before and after the test."""
    yield clocked.clock
    clocked.clock.set(0)


@pytest.fixture
async def shop(clocked: Clocked, serve: Serve, tmp_path: Path) -> AsyncIterator[Shop]:
    """Customers and orders on it, with nothing in them."""
    urls = {settings.service: clocked.schemas.fresh(settings, tmp_path) for settings in SERVICES}

    def make_settings(settings_class: type[S], **overrides: Any) -> S:
        return settings_class(**{**on_database(urls[settings_class.service]), **overrides})

    async with open_shop(make_settings, serve) as opened:
        yield opened
    await _nothing_is_off(urls["orders"])


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_a_saga_whose_lease_a_jump_ends_is_driven_on_and_its_owner_writes_nothing(
    shop: Shop, clock: Clock, jump: int
) -> None:
    body = await shop.basket()
    owner, other = await shop.replica(), await shop.replica()
    held = Held()
    shop.to_orders.breaks("/confirm", held)
    first = asyncio.create_task(owner.job(body))
    await held.arrived()

    clock.set(jump)
    await other.driver.sweep()
    await other.stopped_working()
    held.let_go()
    reply, again = await first, await other.job(body)

    assert reply.status == again.status == 201
    assert reply.body == again.body
    saga = await other.saga(reply.json["saga_id"])
    assert (saga["status"], saga["attempts"]) == ("SUCCEEDED", 2)
    assert (await shop.only_order())["status"] == "CONFIRMED"
    assert await shop.stock(body) == (8, 0)


async def test_reservations_go_by_the_databases_clock_and_a_jump_neither_loses_nor_sells_twice(
    shop: Shop, clock: Clock
) -> None:
    await shop.other_orders(reservation_ttl=HOUR // 2, customers_api_base=shop.customers.url)
    orders = Client(shop.orders._session, int(shop.to_orders.target.rpartition(":")[2]))  # noqa: SLF001 - the other replica
    body = await shop.basket(qty=10)
    reserved = (await orders.post("/admin/orders/create-order", body)).json["data"]

    clock.set(-HOUR)
    refused(await orders.post("/admin/orders/create-order", body), 409, "stock.insufficient", "shortages")
    clock.set(HOUR)
    late = await orders.post(
        f"/admin/orders/{reserved['id']}/confirm", headers={"Idempotency-Key": f"late-{reserved['id']}"}
    )
    second = await orders.post("/admin/orders/create-order", body)
    clock.set(0)
    before = (await orders.get(f"/admin/orders/find-one/{reserved['id']}")).json["data"]

    refused(late, 409, "order.expired", "retry_needs_new_key")
    assert second.status == 201
    assert (before["status"], before["cancel_reason"]) == ("CANCELED", "expired")
    assert await shop.stock(body) == (10, 10)


# --- the clock of the services ------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["mariadb"], indirect=True)  # SQLite goes by the clock of its process
async def test_jumps_of_the_services_clock_change_nothing(databases: Databases, tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    urls = {settings.service: databases.fresh(settings, tmp_path) for settings in SERVICES}
    told = {**clock.environment, "AUTH": "off", "SERVICE_TOKEN": TOKEN, "SYNCHRONIZE": "false"}
    async with (
        stack(tmp_path, database_urls=urls, environment=told) as services,
        aiohttp.ClientSession() as caller,
    ):
        AioHttpClientInstrumentor.uninstrument_session(caller)  # a caller is none of our services
        ports = [Client(caller, service.port) for service in services]
        catalog, desk = Catalog(ports[0], ports[1]), Orchestrator(ports[2])
        body = await catalog.basket(qty=1)
        answers: dict[str, Reply] = {}
        for jump in (0, HOUR, -HOUR, 0):
            clock.set(jump)
            key = f"key-{len(answers)}"
            answers[key] = await desk.job(body, key=key)
            replays = [await desk.job(body, key=each) for each in answers]
            assert [reply.body for reply in replays] == [reply.body for reply in answers.values()]
            ready = [await Client(caller, service.admin_port).get("/readyz") for service in services]
            assert {reply.status for reply in ready} == {200}
        made = await catalog.all_orders()
        stock = await catalog.stock(body)

    assert [reply.status for reply in answers.values()] == [201] * 4
    assert ([order["status"] for order in made], stock) == (["CONFIRMED"] * 4, (6, 0))
    [(now,)] = execute(urls["orders"], "SELECT UTC_TIMESTAMP(6)")
    for order in made:
        created = datetime.fromisoformat(order["created_at"]).replace(tzinfo=None)
        assert abs(now - created) < timedelta(minutes=20)
    await _nothing_is_off(urls["orders"])
