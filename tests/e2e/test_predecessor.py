"""The measured defects of the predecessor, each with the test that it does not come back.

Three apps on real sockets, on both databases.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import literal, text, update

import customers.app
import customers.settings
import orchestrator.app
import orchestrator.settings
import orders.app
import orders.settings
from chassis import dialects
from chassis.database import DATABASE
from chassis.idempotency import KEYS
from orders.models import IdempotencyKey, Order
from orders.reconcile import find_discrepancies
from tests.client import Client, Reply, Serve, refused
from tests.databases import MakeSettings

CUSTOMERS, PRODUCTS, ORDERS = "/admin/customers", "/admin/products", "/admin/orders"
JOB = "/orchestrator/create-and-confirm-order"
TIMEOUT = 30


@dataclass(frozen=True, slots=True)
class System:
    """The three services, and the database of orders."""

    customers: Client
    orders: Client
    orchestrator: Client
    app: Any

    async def customer(self) -> int:
        """The id of the one customer."""
        body = {"name": "ACME Corporation", "email": "ops@acme.com", "phone": "+1234567890"}
        reply = await self.customers.post(f"{CUSTOMERS}/create-customer", body)
        return int(reply.json["data"]["id"])

    async def product(self, sku: str = "DESK", stock: int = 10) -> int:
        """The id of a new product."""
        body = {"sku": sku, "name": sku.title(), "price_cents": 500, "stock": stock}
        reply = await self.orders.post(f"{PRODUCTS}/create-product", body)
        return int(reply.json["data"]["id"])

    async def create(self, customer_id: int, *items: tuple[int, int]) -> Reply:
        """Ask orders for an order of these quantities of these products."""
        lines = [{"product_id": product_id, "qty": qty} for product_id, qty in items]
        return await self.orders.post(f"{ORDERS}/create-order", {"customer_id": customer_id, "items": lines})

    async def created(self, customer_id: int, *items: tuple[int, int]) -> int:
        """The id of a new order."""
        return int((await self.create(customer_id, *items)).json["data"]["id"])

    async def confirm(self, order_id: int, key: str) -> Reply:
        """Ask orders for a confirmation."""
        return await self.orders.post(f"{ORDERS}/{order_id}/confirm", headers={"Idempotency-Key": key})

    async def all_orders(self, **filters: str) -> list[Any]:
        """The orders on the first page."""
        reply = await self.orders.get(f"{ORDERS}/find-all", params={"limit": "100", **filters})
        found: list[Any] = reply.json["data"]
        return found

    async def sql(self, statement: str) -> None:
        """Change the database of orders behind its back."""
        await self.app[DATABASE].transact(lambda session: session.execute(text(statement)))

    async def stock(self, product_id: int) -> tuple[int, int]:
        """What is on hand, and what of it is reserved; every unit is accounted for."""
        assert await find_discrepancies(self.app[DATABASE]) == []
        shown = (await self.orders.get(f"{PRODUCTS}/find-one/{product_id}")).json["data"]
        return shown["stock"], shown["reserved"]


@pytest.fixture
async def system(make_settings: MakeSettings, serve: Serve) -> System:
    """The three services, empty; orders has one connection to its database, for all requests together."""
    customers_client = await serve(customers.app.create_app(make_settings(customers.settings.Settings)))
    patient = dict.fromkeys(("peer_timeout", "peer_deadline", "db_pool_timeout", "join_timeout"), TIMEOUT)
    app = orders.app.create_app(
        make_settings(
            orders.settings.Settings, customers_api_base=customers_client.url, db_pool_size=1, **patient
        )
    )
    orders_client = await serve(app)
    orchestrator_client = await serve(
        orchestrator.app.create_app(
            make_settings(
                orchestrator.settings.Settings,
                customers_api_base=customers_client.url,
                orders_api_base=orders_client.url,
            )
        )
    )
    return System(customers_client, orders_client, orchestrator_client, app)


async def test_10_concurrent_creates_do_not_hang(system: System) -> None:
    customer, product = await system.customer(), await system.product(stock=10)

    async with asyncio.timeout(TIMEOUT):
        replies = await asyncio.gather(*(system.create(customer, (product, 1)) for _ in range(10)))

    assert [reply.status for reply in replies] == 10 * [201]
    assert await system.stock(product) == (10, 10)


async def test_40_creates_on_a_stock_of_10_sell_10(system: System) -> None:
    customer, product = await system.customer(), await system.product(stock=10)

    async def buy(number: int) -> int:
        reply = await system.create(customer, (product, 1))
        if reply.status == 201:
            reply = await system.confirm(reply.json["data"]["id"], key=f"key-{number}")
        return reply.status

    bought = await asyncio.gather(*(buy(number) for number in range(40)))

    assert Counter(bought) == {200: 10, 409: 30}
    assert await system.stock(product) == (0, 0)
    assert [order["status"] for order in await system.all_orders()] == 10 * ["CONFIRMED"]


async def test_the_same_orchestrator_key_three_times_makes_one_order(system: System) -> None:
    customer, product = await system.customer(), await system.product(stock=10)
    job = {"customer_id": customer, "items": [{"product_id": product, "qty": 2}], "idempotency_key": "key-1"}

    replies = [await system.orchestrator.post(JOB, job) for _ in range(3)]

    assert {(reply.status, reply.body) for reply in replies} == {(201, replies[0].body)}
    assert [order["status"] for order in await system.all_orders()] == ["CONFIRMED"]
    assert await system.stock(product) == (8, 0)


async def test_4_concurrent_calls_with_one_key_make_one_confirmed_order(system: System) -> None:
    customer, product = await system.customer(), await system.product(stock=10)
    job = {"customer_id": customer, "items": [{"product_id": product, "qty": 2}], "idempotency_key": "key-1"}

    replies = await asyncio.gather(*(system.orchestrator.post(JOB, job) for _ in range(4)))

    assert {(reply.status, reply.body) for reply in replies} == {(201, replies[0].body)}
    assert [order["status"] for order in await system.all_orders()] == ["CONFIRMED"]
    assert await system.stock(product) == (8, 0)


async def test_8_concurrent_confirms_with_one_key_are_answered_alike(system: System) -> None:
    customer, product = await system.customer(), await system.product(stock=10)
    order_id = await system.created(customer, (product, 2))

    replies = await asyncio.gather(*(system.confirm(order_id, key="key-1") for _ in range(8)))

    assert {(reply.status, reply.body) for reply in replies} == {(200, replies[0].body)}
    assert await system.stock(product) == (8, 0)


async def test_no_order_is_confirmed_with_its_stock_returned(system: System) -> None:
    customer, product = await system.customer(), await system.product(stock=40)
    order_ids = [await system.created(customer, (product, 1)) for _ in range(40)]

    replies = await asyncio.gather(
        *(system.confirm(order_id, key=f"key-{order_id}") for order_id in order_ids),
        *(system.orders.post(f"{ORDERS}/{order_id}/cancel") for order_id in order_ids),
    )

    assert {reply.status for reply in replies} <= {200, 409}
    assert [order["status"] for order in await system.all_orders()] == 40 * ["CANCELED"]
    assert await system.stock(product) == (40, 0)


async def test_creating_against_canceling_loses_no_unit(system: System) -> None:
    customer, product = await system.customer(), await system.product(stock=100)
    order_ids = [await system.created(customer, (product, 4)) for _ in range(25)]

    replies = await asyncio.gather(
        *(system.orders.post(f"{ORDERS}/{order_id}/cancel") for order_id in order_ids),
        *(system.create(customer, (product, 4)) for _ in range(25)),
    )

    statuses = Counter(reply.status for reply in replies)
    assert statuses[200] == 25
    assert statuses[201] + statuses[409] == 25
    assert await system.stock(product) == (100, 4 * statuses[201])


async def test_a_key_on_another_order_is_refused(system: System) -> None:
    customer, product = await system.customer(), await system.product(stock=10)
    first, second = [await system.created(customer, (product, 1)) for _ in range(2)]
    await system.confirm(first, key="key-1")

    reply = await system.confirm(second, key="key-1")

    refused(reply, 422, "idempotency.key_reused", "retry_needs_new_key")
    assert await system.stock(product) == (9, 1)


async def test_an_expired_key_is_not_replayed_for_ever(system: System) -> None:
    customer, product = await system.customer(), await system.product(stock=10)
    order_id = await system.created(customer, (product, 1))
    await system.confirm(order_id, key="key-1")
    a_week_ago = update(IdempotencyKey).values(completed_at=dialects.seconds_from_now(-7 * 86_400 - 1))
    await system.app[DATABASE].transact(lambda session: session.execute(a_week_ago))

    await system.app[KEYS].purge(7)

    reply = await system.confirm(order_id, key="key-1")
    refused(reply, 409, "order.not_confirmable", "order_status", "retry_needs_new_key")
    assert "Idempotent-Replayed" not in reply.headers


async def test_a_key_of_300_characters_does_not_confirm(system: System) -> None:
    customer, product = await system.customer(), await system.product(stock=10)
    order_id = await system.created(customer, (product, 1))

    reply = await system.confirm(order_id, key="k" * 300)

    refused(reply, 400, "idempotency.key_invalid")
    assert await system.stock(product) == (10, 1)


async def test_an_order_without_items_is_refused(system: System) -> None:
    customer = await system.customer()

    of_orders = await system.create(customer)
    of_the_orchestrator = await system.orchestrator.post(
        JOB, {"customer_id": customer, "items": [], "idempotency_key": "key-1"}
    )

    assert [error["pointer"] for error in refused(of_orders, 400, "request.invalid")["errors"]] == ["#/items"]
    assert (of_the_orchestrator.status, of_the_orchestrator.json["code"]) == (400, "request.invalid")
    assert await system.all_orders() == []


async def test_the_same_product_twice_is_one_line(system: System) -> None:
    customer, product = await system.customer(), await system.product(stock=10)

    reply = await system.create(customer, (product, 2), (product, 3))

    assert reply.status == 201
    assert [item["qty"] for item in reply.json["data"]["items"]] == [5]
    assert await system.stock(product) == (10, 5)


async def test_a_missing_customer_is_missing(system: System) -> None:
    product = await system.product()
    job = {"customer_id": 999, "items": [{"product_id": product, "qty": 1}], "idempotency_key": "key-1"}

    shown = await system.customers.get(f"{CUSTOMERS}/find-one/999")
    ordered = await system.create(999, (product, 1))
    done = await system.orchestrator.post(JOB, job)

    refused(shown, 404, "customer.not_found")
    refused(ordered, 404, "customer.not_found")
    assert (done.status, done.json["code"], done.json["success"]) == (404, "customer.not_found", False)
    assert await system.all_orders() == []


async def test_an_id_in_the_body_overwrites_nothing(system: System) -> None:
    customer = await system.customer()
    before = await system.customers.get(f"{CUSTOMERS}/find-one/{customer}")
    body = {"id": customer, "name": "Mallory", "email": "mallory@example.com"}

    created = await system.customers.post(f"{CUSTOMERS}/create-customer", body)
    updated = await system.customers.patch(f"{CUSTOMERS}/update/{customer}", body)

    for reply in (created, updated):
        assert [error["pointer"] for error in refused(reply, 400, "request.invalid")["errors"]] == ["#/id"]
    assert (await system.customers.get(f"{CUSTOMERS}/find-one/{customer}")).body == before.body


async def test_no_error_tells_sql(system: System) -> None:
    customer, product = await system.customer(), await system.product()
    quote = "'; DROP TABLE orders; --"
    again = {"name": "Again", "email": "ops@acme.com"}

    replies = [
        await system.customers.post(f"{CUSTOMERS}/create-customer", again),
        await system.customers.get(f"{CUSTOMERS}/find-one/{2**63 - 1}"),
        await system.customers.get(f"{CUSTOMERS}/find-all", params={"cursor": quote}),
        await system.orders.post(
            f"{PRODUCTS}/create-product", {"sku": "DESK", "name": "X", "price_cents": 1}
        ),
        await system.orders.get(f"{ORDERS}/find-all", params={"status": quote}),
        await system.create(customer, (2**63 - 1, 1)),
        await system.create(customer, (product, 1_000_000)),
        await system.orchestrator.get(f"/orchestrator/sagas/{quote}"),
    ]
    await system.sql("ALTER TABLE order_events RENAME TO hidden")
    replies.append(await system.create(customer, (product, 1)))
    await system.sql("ALTER TABLE hidden RENAME TO order_events")

    assert [reply.status for reply in replies] == [409, 404, 400, 409, 400, 404, 409, 400, 503]
    for reply in replies:
        told = reply.text.replace("DROP TABLE orders", "")
        assert not any(
            word in told for word in ("SELECT", "INSERT", "UPDATE", "order_events", "UNIQUE", "sqlite")
        )


async def test_to_without_from_counts_and_includes_its_day(system: System) -> None:
    customer, product = await system.customer(), await system.product()
    evening, next_day = [await system.created(customer, (product, 1)) for _ in range(2)]
    for order_id, moment in [
        (evening, datetime(2026, 1, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        (next_day, datetime(2026, 2, 1, tzinfo=UTC)),
    ]:
        created_at = literal(moment, Order.created_at.type)
        statement = update(Order).where(Order.id == order_id).values(created_at=created_at)
        await system.app[DATABASE].transact(lambda session, statement=statement: session.execute(statement))

    found = await system.all_orders(to="2026-01-31")

    assert [order["id"] for order in found] == [evening]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}])
async def test_the_internal_operation_wants_its_token(system: System, headers: dict[str, str]) -> None:
    customer = await system.customer()

    reply = await system.customers.get(f"{CUSTOMERS}/internal/customers/{customer}", headers=headers)

    refused(reply, 401, "auth.service_token_invalid")


async def test_the_curls_of_its_readme_work(system: System) -> None:
    customer = await system.customers.request(
        "POST",
        "/admin/customers/create-customer",
        headers={"Content-Type": "application/json"},
        data="""{
    "name": "ACME Corporation",
    "email": "ops@acme.com",
    "phone": "+1234567890"
  }""",
    )
    customer_id = customer.json["data"]["id"]
    first, second = [await system.product(sku=sku) for sku in ("DESK", "LAMP")]
    job = await system.orchestrator.post(
        "/orchestrator/create-and-confirm-order",
        {
            "customer_id": customer_id,
            "items": [{"product_id": first, "qty": 2}, {"product_id": second, "qty": 1}],
            "idempotency_key": "unique-key-123",
            "correlation_id": "req-456",
        },
    )
    order = await system.orders.post(
        "/admin/orders/create-order",
        {"customer_id": customer_id, "items": [{"product_id": first, "qty": 2}]},
    )
    confirmed = await system.orders.post(
        f"/admin/orders/{order.json['data']['id']}/confirm", headers={"X-Idempotency-Key": "unique-key-789"}
    )
    health = [
        await system.customers.get("/"),
        await system.orders.get("/health"),
        await system.orchestrator.get("/"),
    ]

    assert customer.status == 201
    assert (job.status, job.json["success"], job.json["correlation_id"]) == (201, True, "req-456")
    assert job.json["data"]["order"]["status"] == "CONFIRMED"
    assert (confirmed.status, confirmed.json["data"]["status"]) == (200, "CONFIRMED")
    assert [reply.status for reply in health] == [200, 200, 200]
