"""A shop: the orders service on a real socket, its customers service as a real peer, one customer."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from aiohttp import web
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.elements import ColumnElement

from chassis import dialects
from chassis.database import DATABASE, Database
from orders.models import IdempotencyKey, Order, Product, StockMovement
from orders.reconcile import find_discrepancies
from tests.client import Client, Reply

PRODUCTS = "/admin/products"
ORDERS = "/admin/orders"
CUT_OFF: dict[str, Any] = {
    "customers_api_base": "http://127.0.0.1:1",
    "peer_timeout": 0.2,
    "peer_deadline": 0.2,
}
"""Settings of a service that cannot reach customers, and soon says so."""
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Level:
    """What a product has: on hand, and held by orders."""

    stock: int
    reserved: int


class Shop:
    """What a test does with the orders service; with several replicas, they take turns."""

    def __init__(self, apps: list[web.Application], clients: list[Client], customer_id: int) -> None:
        self.app = apps[0]
        self.client = clients[0]
        self.customer_id = customer_id
        self._turns = itertools.cycle(clients)

    @property
    def database(self) -> Database:
        return self.app[DATABASE]

    # --- over HTTP --------------------------------------------------------------------------------

    async def get(self, path: str, **options: Any) -> Reply:
        return await next(self._turns).get(path, **options)

    async def post(self, path: str, json: Any = None, *, key: str | None = None, **options: Any) -> Reply:
        headers = {} if key is None else {"Idempotency-Key": key}
        headers |= options.pop("headers", {})
        return await next(self._turns).post(path, json, headers=headers, **options)

    async def create_product(self, **fields: Any) -> Reply:
        number = next(_numbers)
        given = {"sku": f"SKU-{number}", "name": f"Product {number}", "price_cents": 500, "stock": 10}
        return await self.post(f"{PRODUCTS}/create-product", given | fields)

    async def product(self, **fields: Any) -> int:
        """The id of a new product: 10 units at 500 cents unless told otherwise."""
        return int(_data(await self.create_product(**fields), 201)["id"])

    async def products(self, count: int, **fields: Any) -> list[int]:
        """The ids of so many new products, put into the database at one go."""
        now = dialects.now()
        common: dict[str, Any] = {"name": "Bulk", "price_cents": 500, "currency": "USD", "stock": 10} | fields
        skus = [f"SKU-{next(_numbers)}" for _ in range(count)]

        async def work(session: AsyncSession) -> list[int]:
            made = insert(Product).values(**common, reserved=0, created_at=now, updated_at=now)
            await session.execute(made, [{"sku": sku} for sku in skus])
            found = select(Product.id).where(Product.sku.in_(skus)).order_by(Product.id)
            ids = list(await session.scalars(found))
            counted = insert(StockMovement).values(
                kind="initial", stock_delta=common["stock"], reserved_delta=0, correlation_id="bulk", at=now
            )
            await session.execute(counted, [{"product_id": product_id} for product_id in ids])
            return ids

        return await self.database.transact(work)

    async def adjust_stock(self, product_id: int, delta: int, *, key: str | None = None) -> Reply:
        body = {"delta": delta, "reason": "Counted again"}
        return await self.post(f"{PRODUCTS}/{product_id}/adjust-stock", body, key=key)

    async def create(self, quantities: Mapping[int, int], *, key: str | None = None, **fields: Any) -> Reply:
        """Ask for an order of these quantities by product id."""
        items = [{"product_id": product_id, "qty": qty} for product_id, qty in quantities.items()]
        body = {"customer_id": self.customer_id, "items": items} | fields
        return await self.post(f"{ORDERS}/create-order", body, key=key)

    async def confirm(self, order_id: int, *, key: str | None = None) -> Reply:
        """Ask for the confirmation, with a key of its own unless told otherwise."""
        return await self.post(f"{ORDERS}/{order_id}/confirm", key=key or f"confirm-{next(_numbers)}")

    async def cancel(self, order_id: int, reason: str | None = None, *, key: str | None = None) -> Reply:
        body = None if reason is None else {"reason": reason}
        return await self.post(f"{ORDERS}/{order_id}/cancel", body, key=key)

    async def created(self, quantities: Mapping[int, int], **fields: Any) -> int:
        """The id of a new order."""
        return int(_data(await self.create(quantities, **fields), 201)["id"])

    async def confirmed(self, quantities: Mapping[int, int], **fields: Any) -> int:
        """The id of a new order that is confirmed."""
        order_id = await self.created(quantities, **fields)
        _data(await self.confirm(order_id), 200)
        return order_id

    async def show(self, order_id: int) -> Any:
        """The order as find-one shows it."""
        return _data(await self.get(f"{ORDERS}/find-one/{order_id}"), 200)

    async def level(self, product_id: int) -> Level:
        """What find-one says of the product's stock."""
        shown = _data(await self.get(f"{PRODUCTS}/find-one/{product_id}"), 200)
        assert shown["available"] == shown["stock"] - shown["reserved"]
        return Level(shown["stock"], shown["reserved"])

    # --- beside HTTP ------------------------------------------------------------------------------

    async def sql(self, statement: str, **values: Any) -> None:
        """Change the database behind the service's back."""
        await self.database.transact(lambda session: session.execute(text(statement), values))

    async def set_order(self, order_id: int, **moments: ColumnElement[datetime]) -> None:
        """Put moments of an order elsewhere, in terms of the database's clock."""
        statement = update(Order).where(Order.id == order_id).values(**moments)
        await self.database.transact(lambda session: session.execute(statement))

    async def count(self, table: type[Order | Product | StockMovement | IdempotencyKey]) -> int:
        """How many rows the table has."""
        async with self.database.read() as session:
            return await session.scalar(select(func.count()).select_from(table)) or 0

    async def ledger(self, product_id: int) -> list[tuple[str, int, int]]:
        """The product's movements: kind, stock, reserved."""
        columns = (StockMovement.kind, StockMovement.stock_delta, StockMovement.reserved_delta)
        statement = select(*columns).where(StockMovement.product_id == product_id).order_by(StockMovement.id)
        async with self.database.read() as session:
            return [
                (row.kind, row.stock_delta, row.reserved_delta) for row in await session.execute(statement)
            ]

    async def discrepancies(self) -> list[str]:
        """What `python -m orders reconcile` finds."""
        return await find_discrepancies(self.database)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what only a look at the database tells."""
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 - no event of ours to wait for
            await asyncio.sleep(0.15)  # InnoDB shows locks anew only when nobody looked for 0.1 s


async def new_customer(peer: Client) -> int:
    """The id of a customer that nobody else has; active."""
    body = {"name": "ACME Corporation", "email": f"ops-{next(_numbers)}@example.com"}
    return int(_data(await peer.post("/admin/customers/create-customer", body), 201)["id"])


class OpenShop(Protocol):
    """The fixture `open_shop`: a shop with these settings. Opened twice, both have the same database."""

    async def __call__(self, *, replicas: int = 1, **settings: Any) -> Shop: ...


def _data(reply: Reply, status: int) -> Any:
    assert reply.status == status, reply.text
    return reply.json["data"]
