"""The whole system for a test: customers, orders, and any number of orchestrators before them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Any

from aiohttp import web
from sqlalchemy import update

import customers.app
import customers.settings
import orchestrator.app
import orchestrator.settings
import orders.app
import orders.settings
from chassis import dialects
from chassis.database import DATABASE, Database, changed
from orchestrator.answers import JOB_PATH
from orchestrator.driver import DRIVER, Driver
from orchestrator.models import UNFINISHED, IdempotencyKey, Saga
from tests.client import Client, Reply, Serve, refused
from tests.databases import MakeSettings
from tests.orchestrator.wire import WAIT_SECONDS, Wire, open_wire

MEMBERS = ("success", "step", "compensated", "retry_needs_new_key", "saga_id", "saga")
"""What every problem of a saga has beside the usual members."""


# --- the orchestrator ---------------------------------------------------------------------------


class Orchestrator:
    """The orchestrator, as its callers see it."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def job(self, body: Any, key: str | None = "key-1", **headers: str) -> Reply:
        """Ask for the main job; headers are named like `X_Correlation_Id`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            named["Idempotency-Key"] = key
        return await self.client.post(JOB_PATH, body, headers=named)

    async def saga(self, saga_id: str) -> Any:
        """The saga with this id."""
        reply = await self.client.get(f"/orchestrator/sagas/{saga_id}")
        assert reply.status == 200, reply.text
        return reply.json["data"]

    async def only_saga(self) -> Any:
        """The one saga that there is."""
        (saga,) = (await self.client.get("/orchestrator/sagas")).json["data"]
        return saga

    async def ended(self, saga_id: str) -> Any:
        """The saga, once nobody works on it any more."""

        async def over() -> Any:
            saga = await self.saga(saga_id)
            return saga if saga["status"] not in UNFINISHED else None

        return await until(over)


class Replica(Orchestrator):
    """An orchestrator in this process, whose inside can be reached where nothing else will do."""

    def __init__(self, app: web.Application, client: Client) -> None:
        super().__init__(client)
        self.app = app

    @property
    def driver(self) -> Driver:
        return self.app[DRIVER]

    @property
    def database(self) -> Database:
        return self.app[DATABASE]

    async def stopped_working(self) -> None:
        """Wait until this replica drives nothing."""
        await asyncio.gather(*self.driver._running)  # noqa: SLF001 - nothing outside tells

    async def lease_runs_out(self, saga_id: str) -> None:
        """Let so much time pass that the saga may be taken over."""
        await lease_runs_out(self.database, saga_id)


async def lease_runs_out(database: Database, saga_id: str, *, ago: float = 1) -> None:
    """Let the lease or the pause of a saga be over since so many seconds."""
    past = dialects.seconds_from_now(-ago)
    late = update(Saga).where(Saga.id == saga_id).values(lease_until=past, resume_at=past)
    assert await database.transact(lambda session: changed(session, late)) == 1


async def ended_days_ago(database: Database, saga_id: str, days: float) -> None:
    """Let a saga and its key have ended so many days ago."""
    then = dialects.seconds_from_now(-days * 86_400)
    its = update(Saga).where(Saga.id == saga_id).values(created_at=then, finished_at=then)
    its_key = update(IdempotencyKey).where(IdempotencyKey.resource == saga_id).values(completed_at=then)
    for statement in (its, its_key):
        assert await database.transact(partial(changed, statement=statement)) == 1


# --- customers and orders -----------------------------------------------------------------------


class Catalog:
    """Customers, products and orders, through the public APIs."""

    def __init__(self, customers: Client, orders: Client) -> None:
        self.customers = customers
        self.orders = orders
        self._numbers = count(1)

    async def customer(self, **fields: Any) -> Any:
        """Add a customer."""
        body = {"name": "ACME Corporation", "email": f"ops-{next(self._numbers)}@acme.com", **fields}
        return _created(await self.customers.post("/admin/customers/create-customer", body))

    async def product(self, **fields: Any) -> Any:
        """Add a product."""
        body = {"sku": f"DESK-{next(self._numbers)}", "name": "Oak desk", "price_cents": 129900, "stock": 10}
        return _created(await self.orders.post("/admin/products/create-product", {**body, **fields}))

    async def basket(self, qty: int = 2, **product: Any) -> dict[str, Any]:
        """A body for the main job that nothing speaks against, with a customer and a product of its own."""
        customer, item = await self.customer(), await self.product(**product)
        return {"customer_id": customer["id"], "items": [{"product_id": item["id"], "qty": qty}]}

    async def cancel(self, order_id: int) -> None:
        """Cancel an order behind the back of its saga."""
        reply = await self.orders.post(f"/admin/orders/{order_id}/cancel", {"reason": "by hand"})
        assert reply.status == 200, reply.text

    async def confirm(self, order_id: int) -> None:
        """Confirm an order behind the back of its saga."""
        path, headers = f"/admin/orders/{order_id}/confirm", {"Idempotency-Key": "by-hand"}
        reply = await self.orders.post(path, headers=headers)
        assert reply.status == 200, reply.text

    async def all_orders(self, **query: Any) -> Any:
        """Every order, newest first."""
        return (await self.orders.get("/admin/orders/find-all", params={"limit": 100, **query})).json["data"]

    async def only_order(self) -> Any:
        """The one order that there is."""
        (order,) = await self.all_orders()
        return order

    async def stock(self, body: dict[str, Any]) -> tuple[int, int]:
        """Stock and reservations of the first product in a body of the main job."""
        path = f"/admin/products/find-one/{body['items'][0]['product_id']}"
        product = (await self.orders.get(path)).json["data"]
        return product["stock"], product["reserved"]


class Shop(Catalog):
    """Customers and orders in this process, the wires that lead to them, and orchestrators before them."""

    def __init__(
        self,
        customers: Client,
        orders: Client,
        *,
        to_customers: Wire,
        to_orders: Wire,
        make_settings: MakeSettings,
        serve: Serve,
    ) -> None:
        super().__init__(customers, orders)
        self.to_customers = to_customers
        self.to_orders = to_orders
        self._make_settings = make_settings
        self._serve = serve

    async def other_orders(self, **settings: Any) -> None:
        """Let the wire lead to another replica of orders, with other settings."""
        settings = {"customers_api_base": self.customers.url, **settings}
        app = orders.app.create_app(self._make_settings(orders.settings.Settings, **settings))
        self.to_orders.target = (await self._serve(app)).url

    async def replica(self, **settings: Any) -> Replica:
        """Start an orchestrator that sweeps only when it is told to; all share one database."""
        settings = {
            "customers_api_base": self.to_customers.url,
            "orders_api_base": self.to_orders.url,
            "peer_timeout": 5,
            "peer_deadline": 5,
            "sweep_every": 3600,
            **settings,
        }
        app = orchestrator.app.create_app(self._make_settings(orchestrator.settings.Settings, **settings))
        return Replica(app, await self._serve(app))


@asynccontextmanager
async def open_shop(make_settings: MakeSettings, serve: Serve) -> AsyncIterator[Shop]:
    """Start customers and orders, with nothing in them."""
    async with open_wire() as to_customers, open_wire() as to_orders:
        first = await serve(customers.app.create_app(make_settings(customers.settings.Settings)))
        to_customers.target = first.url
        settings = make_settings(orders.settings.Settings, customers_api_base=first.url)
        second = await serve(orders.app.create_app(settings))
        to_orders.target = second.url
        yield Shop(
            first,
            second,
            to_customers=to_customers,
            to_orders=to_orders,
            make_settings=make_settings,
            serve=serve,
        )


def _created(reply: Reply) -> Any:
    assert reply.status == 201, reply.text
    return reply.json["data"]


# --- what to expect -----------------------------------------------------------------------------


async def until(check: Callable[[], Awaitable[Any]]) -> Any:
    """Ask until the answer is yes, and return it."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            if found := await check():
                return found
            await asyncio.sleep(0.02)


def ended_by(
    reply: Reply, status: int, code: str, *, step: str, compensated: bool = False, **members: Any
) -> Any:
    """Assert that the saga ended with this refusal; return the problem."""
    problem = refused(reply, status, code, *MEMBERS, *members)
    assert problem["instance"] == JOB_PATH
    assert problem["success"] is False
    assert problem["retryable"] is False
    assert problem["retry_needs_new_key"] is True
    assert (problem["step"], problem["compensated"]) == (step, compensated)
    assert {name: problem[name] for name in members} == members
    assert problem["saga"] == reply.headers["Location"] == f"/orchestrator/sagas/{problem['saga_id']}"
    return problem


def not_ended(reply: Reply, code: str, *, step: str) -> Any:
    """Assert that there is no answer yet and that the client may ask again; return the problem."""
    problem = refused(reply, 503, code, *MEMBERS)
    assert problem["success"] is False
    assert problem["retryable"] is True
    assert problem["retry_needs_new_key"] is False
    assert (problem["step"], problem["compensated"]) == (step, False)
    assert problem["saga"] == reply.headers["Location"] == f"/orchestrator/sagas/{problem['saga_id']}"
    return problem
