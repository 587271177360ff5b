"""What the contract of keys is tested on: the three services, and the five operations that take a key."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, ClassVar

from aiohttp import web
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

import customers.app
import customers.settings
import orchestrator.app
import orchestrator.settings
import orders.app
import orders.settings
from chassis.database import DATABASE, Database
from chassis.idempotency import KEYS, Keys
from chassis.settings import parse_database_url
from tests.client import Client, Reply, Serve
from tests.databases import on_database
from tests.observed import Sample
from tests.orchestrator.shop import Catalog, until

NOBODY = 999_999
_TRIGGER = {
    "mysql": "CREATE TRIGGER broken BEFORE INSERT ON stock_movements FOR EACH ROW SIGNAL SQLSTATE '45000'",
    "sqlite": "CREATE TRIGGER broken BEFORE INSERT ON stock_movements BEGIN SELECT RAISE(ABORT, 'no'); END",
}
_numbers = count(1)


class Replica:
    """A service in this process."""

    def __init__(self, app: web.Application, client: Client) -> None:
        self.app = app
        self.client = client

    @property
    def keys(self) -> Keys:
        return self.app[KEYS]

    @property
    def database(self) -> Database:
        return self.app[DATABASE]


class System:
    """Customers, and two replicas each of orders and of the orchestrator, on one database a service."""

    def __init__(self, urls: dict[str, str], serve: Serve) -> None:
        self.urls = urls
        self._serve = serve
        self.customers: Client
        self.orders: list[Replica] = []
        self.orchestrators: list[Replica] = []

    async def start(self) -> None:
        """Serve."""
        on_url = on_database(self.urls["customers"])
        self.customers = await self._serve(customers.app.create_app(customers.settings.Settings(**on_url)))
        self.orders = [await self.open_orders() for _ in range(2)]
        self.orchestrators = [await self.open_orchestrator() for _ in range(2)]

    def told(self, service: str) -> dict[str, Any]:
        """The settings of a replica: it gives up a peer soon, and tidies up only when told to."""
        told: dict[str, Any] = {"customers_api_base": self.customers.url}
        if service == "orders":
            told["expire_every"] = 3600
        else:
            told["orders_api_base"] = self.orders[0].client.url
            told |= {"peer_timeout": 5, "peer_deadline": 0.2, "sweep_every": 3600}
        return on_database(self.urls[service]) | told

    async def open_orders(self, **given: Any) -> Replica:
        """Another replica of orders."""
        settings = orders.settings.Settings(**self.told("orders") | given)
        app = orders.app.create_app(settings)
        return Replica(app, await self._serve(app))

    async def open_orchestrator(self, **given: Any) -> Replica:
        """Another replica of the orchestrator."""
        settings = orchestrator.settings.Settings(**self.told("orchestrator") | given)
        app = orchestrator.app.create_app(settings)
        return Replica(app, await self._serve(app))

    @asynccontextmanager
    async def held(self, product_id: int) -> AsyncIterator[None]:
        """Let nobody change the stock of this product within the block."""
        async with self._connection("orders") as connection:
            if connection.dialect.name == "sqlite":
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                lock = text("SELECT id FROM products WHERE id = :id FOR UPDATE")
                await connection.execute(lock, {"id": product_id})
            yield
            await connection.rollback()

    @asynccontextmanager
    async def broken(self) -> AsyncIterator[None]:
        """Let the database of orders refuse every change of stock within the block."""
        async with self._connection("orders") as connection:
            await connection.exec_driver_sql(_TRIGGER[connection.dialect.name])
            await connection.commit()
            yield
            await connection.exec_driver_sql("DROP TRIGGER broken")
            await connection.commit()

    async def sql(self, service: str, statement: str, **values: Any) -> list[Any]:
        """Execute a statement behind the back of a service; return its rows."""
        async with self._connection(service) as connection:
            result = await connection.execute(text(statement), values)
            rows = list(result.all()) if result.returns_rows else []
            await connection.commit()
            return rows

    @asynccontextmanager
    async def _connection(self, service: str) -> AsyncIterator[AsyncConnection]:
        engine = create_async_engine(parse_database_url(self.urls[service]), poolclass=NullPool)
        async with engine.connect() as connection:
            yield connection
        await engine.dispose()


async def in_flight(requests: int) -> None:
    """Wait until so many requests are under way, in all services together."""
    active = Sample("http_server_active_requests")

    async def arrived() -> bool:
        return active.value >= requests

    await until(arrived)


SAME = ("Location", "ETag", "Content-Type")


def is_replay(reply: Reply, of: Reply) -> bool:
    """Whether it is the same answer, marked as given again."""
    return (
        (reply.status, reply.body) == (of.status, of.body)
        and [reply.headers.get(name) for name in SAME] == [of.headers.get(name) for name in SAME]
        and is_marked(reply)
    )


def is_marked(reply: Reply) -> bool:
    """Whether it says that it was given before."""
    return reply.headers.get("Idempotent-Replayed") == "true"


# --- the operations -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """A path and a body."""

    path: str
    body: dict[str, Any] | None = None


class Operation:
    """One of the operations, on a customer and a product of its own: 10 units, of which 3 are asked for.

    `first` is the request, `others` are others with the same route, `bad` is one that is not valid.
    """

    service: ClassVar[str] = "orders"
    status: ClassVar[int] = 200
    once: ClassVar[tuple[int, int, int]]
    """The stock, what of it is reserved, and the number of orders when `first` was done once."""
    first: Request
    others: tuple[Request, ...]
    bad: Request

    def __init__(self, system: System) -> None:
        self.system = system
        self.catalog = Catalog(system.customers, system.orders[0].client)
        self.key = f"key-{next(_numbers)}"
        self.customer_id = 0
        self.product_id = 0

    @property
    def replicas(self) -> list[Replica]:
        return self.system.orders if self.service == "orders" else self.system.orchestrators

    @property
    def table(self) -> str:
        return f"{self.service}_idempotency_keys"

    async def open(self) -> None:
        """Prepare what the requests ask for."""
        number = next(_numbers)
        customer = await self.catalog.customer(email=f"ops-{number}@example.com")
        product = await self.catalog.product(sku=f"KEYED-{number}", stock=10)
        self.customer_id, self.product_id = customer["id"], product["id"]
        await self.prepare()

    async def prepare(self) -> None:
        raise NotImplementedError

    async def refusals(self) -> list[tuple[int, Request]]:
        """Requests that the business refuses, one with 404 and one with 409."""
        raise NotImplementedError

    async def move_on(self) -> None:
        """Let someone change what the operation brought about."""
        raise NotImplementedError

    async def send(
        self, request: Request | None = None, *, key: str | None = None, at: int = 0, **headers: str
    ) -> Reply:
        """Send a request, the first one by default; headers are named like `X_Correlation_Id`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if not any(name.endswith("Idempotency-Key") for name in named) and key != "":
            named["Idempotency-Key"] = key or self.key
        request = request or self.first
        return await self.replicas[at].client.post(request.path, request.body, headers=named)

    async def state(self) -> Any:
        """Everything that the operation could have changed: the product, and the customer's orders."""
        path = f"/admin/products/find-one/{self.product_id}"
        product = (await self.system.orders[0].client.get(path)).json["data"]
        return product, await self.catalog.all_orders(customer_id=self.customer_id)

    async def effect(self) -> tuple[int, int, int]:
        """What is to be compared with `once`."""
        product, orders_made = await self.state()
        return product["stock"], product["reserved"], len(orders_made)

    async def kept(self) -> list[Any]:
        """Scope, status and body of what the database has of the key."""
        columns = f"SELECT scope, status, body FROM {self.table} WHERE {self._quoted('key')} = :key"  # noqa: S608 - our own names
        return await self.system.sql(self.service, columns, key=self.key.encode())

    async def set_age(self, days: float) -> None:
        """Let the key have been done with so many days ago."""
        mysql = f"UTC_TIMESTAMP(6) - INTERVAL {days * 86_400:.0f} SECOND"
        sqlite = f"strftime('%Y-%m-%d %H:%M:%f', 'now', '-{days * 86_400:.0f} seconds') || '000'"
        moment = sqlite if self.system.urls[self.service].startswith("sqlite") else mysql
        statement = f"UPDATE {self.table} SET completed_at = {moment} WHERE {self._quoted('key')} = :key"  # noqa: S608 - our own names
        await self.system.sql(self.service, statement, key=self.key.encode())

    def _quoted(self, column: str) -> str:
        return f'"{column}"' if self.system.urls[self.service].startswith("sqlite") else f"`{column}`"

    async def _created(self) -> int:
        """The id of an order of 3 units."""
        body = {"customer_id": self.customer_id, "items": [{"product_id": self.product_id, "qty": 3}]}
        reply = await self.system.orders[0].client.post("/admin/orders/create-order", body)
        assert reply.status == 201, reply.text
        return int(reply.json["data"]["id"])


class CreateOrder(Operation):
    status = 201
    once = (10, 3, 1)

    async def prepare(self) -> None:
        self.first, other, self.bad = (self._request(qty) for qty in (3, 2, 0))
        self.others = (other,)

    def _request(self, qty: int, product_id: int | None = None) -> Request:
        items = [{"product_id": product_id or self.product_id, "qty": qty}]
        return Request("/admin/orders/create-order", {"customer_id": self.customer_id, "items": items})

    async def refusals(self) -> list[tuple[int, Request]]:
        return [(404, self._request(1, NOBODY)), (409, self._request(11))]

    async def move_on(self) -> None:
        (order,) = await self.catalog.all_orders(customer_id=self.customer_id)
        await self.catalog.cancel(order["id"])


class ConfirmOrder(Operation):
    once = (7, 3, 2)

    async def prepare(self) -> None:
        self.first, other = [Request(self._path(await self._created())) for _ in range(2)]
        self.others = (other,)
        self.bad = Request(self._path("first"))

    def _path(self, order_id: int | str) -> str:
        return f"/admin/orders/{order_id}/confirm"

    async def refusals(self) -> list[tuple[int, Request]]:
        order_id = await self._created()
        await self.catalog.cancel(order_id)
        return [(404, Request(self._path(NOBODY))), (409, Request(self._path(order_id)))]

    async def move_on(self) -> None:
        await self.catalog.cancel(int(self.first.path.split("/")[3]))


class CancelOrder(Operation):
    once = (10, 3, 2)

    async def prepare(self) -> None:
        order_id, other_id = [await self._created() for _ in range(2)]
        await self._confirm(order_id)
        path = f"/admin/orders/{order_id}/cancel"
        self.first, other, self.bad = (Request(path, {"reason": reason}) for reason in ("One", "Other", ""))
        self.others = (other, Request(f"/admin/orders/{other_id}/cancel", {"reason": "One"}))

    async def _confirm(self, order_id: int) -> None:
        path, key = f"/admin/orders/{order_id}/confirm", {"Idempotency-Key": f"confirm-{order_id}"}
        assert (await self.system.orders[0].client.post(path, headers=key)).status == 200

    async def refusals(self) -> list[tuple[int, Request]]:
        order_id = await self._created()
        await self._confirm(order_id)
        long_ago = "UPDATE orders SET confirmed_at = '2020-01-01 00:00:00.000000' WHERE id = :id"
        await self.system.sql("orders", long_ago, id=order_id)
        return [
            (404, Request(f"/admin/orders/{NOBODY}/cancel")),
            (409, Request(f"/admin/orders/{order_id}/cancel")),
        ]

    async def move_on(self) -> None:
        """Nothing comes after the end of an order."""


class AdjustStock(Operation):
    once = (7, 0, 0)

    async def prepare(self) -> None:
        self.first, other, self.bad = (self._request(delta) for delta in (-3, -2, 0))
        other_product = await self.catalog.product(sku=f"OTHER-{self.product_id}", stock=10)
        self.others = (other, self._request(-3, other_product["id"]))

    def _request(self, delta: int, product_id: int | None = None) -> Request:
        path = f"/admin/products/{product_id or self.product_id}/adjust-stock"
        return Request(path, {"delta": delta, "reason": "Counted again"})

    async def refusals(self) -> list[tuple[int, Request]]:
        return [(404, self._request(1, NOBODY)), (409, self._request(-11))]

    async def move_on(self) -> None:
        more = self._request(5)
        assert (await self.system.orders[0].client.post(more.path, more.body)).status == 200


class CreateAndConfirmOrder(CreateOrder):
    service = "orchestrator"
    once = (7, 0, 1)

    def _request(self, qty: int, product_id: int | None = None) -> Request:
        body = super()._request(qty, product_id).body
        return Request("/orchestrator/create-and-confirm-order", body)


OPERATIONS: dict[str, type[Operation]] = {
    "create-order": CreateOrder,
    "confirm": ConfirmOrder,
    "cancel": CancelOrder,
    "adjust-stock": AdjustStock,
    "create-and-confirm-order": CreateAndConfirmOrder,
}
