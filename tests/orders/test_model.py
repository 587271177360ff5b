"""The orders service against a model of it: hypothesis thinks of what callers do, and shortens what fails.

After each step the answer must be the model's, and so must everything that the service shows of its products
and orders, and the ledger must be in order. `MODEL_EXAMPLES=1000` tries so many new sequences on each
database instead of the few that are always the same.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.idempotency import KEYS
from orders import commands
from orders.models import Base, IdempotencyKey, Order
from tests.client import Client, Reply, refused
from tests.orders.model import DAY, HOUR, MINUTE, Answer, Model, Request
from tests.orders.shop import ORDERS, PRODUCTS, OpenShop, Shop, new_customer

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES") or 0)
SETTINGS = settings(
    max_examples=EXAMPLES or 10,
    stateful_step_count=50,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),  # a step is a handful of requests, which it takes for slow
)
STEP_SECONDS = 60
NOBODY = 999_999
T = TypeVar("T")

PATHS = {
    "create_product": ("POST", f"{PRODUCTS}/create-product"),
    "update_product": ("PATCH", f"{PRODUCTS}/update/{{}}"),
    "deactivate_product": ("PATCH", f"{PRODUCTS}/logic-delete/{{}}"),
    "adjust_stock": ("POST", f"{PRODUCTS}/{{}}/adjust-stock"),
    "create_order": ("POST", f"{ORDERS}/create-order"),
    "confirm_order": ("POST", f"{ORDERS}/{{}}/confirm"),
    "cancel_order": ("POST", f"{ORDERS}/{{}}/cancel"),
}


# --- the service, as the model sees it ----------------------------------------------------------


async def send(shop: Shop, request: Request) -> Reply:
    method, path = PATHS[request.operation]
    headers = {} if request.key is None else {"Idempotency-Key": request.key}
    if request.if_match is not None:
        headers["If-Match"] = f'"{request.if_match}"'
    return await shop.client.request(method, path.format(request.target), json=request.body, headers=headers)


async def shown(shop: Shop, path: str) -> list[dict[str, Any]]:
    """All there is, the oldest first."""
    reply = await shop.get(f"{path}/find-all", params={"limit": "100"})
    assert reply.status == 200, reply.text
    assert not reply.json["meta"]["has_next"]
    return [viewed(resource) for resource in reply.json["data"][::-1]]


def viewed(resource: dict[str, Any]) -> dict[str, Any]:
    """A product or an order as the model shows it: without moments, of which it knows no microseconds."""
    view = {name: value for name, value in resource.items() if not name.endswith("_at")}
    view.pop("correlation_id", None)
    if "order_number" in resource:
        created, expires = (datetime.fromisoformat(resource[name]) for name in ("created_at", "expires_at"))
        view["seconds_to_confirm"] = (expires - created).total_seconds()
        view["was_confirmed"] = resource["confirmed_at"] is not None
        view["was_canceled"] = resource["canceled_at"] is not None
    return view


async def let_time_pass(shop: Shop, passed: timedelta) -> None:
    """Put every moment that the service remembers so much further back."""

    async def work(session: AsyncSession) -> None:
        for order in await session.scalars(select(Order)):
            for name in ("created_at", "expires_at", "confirmed_at", "canceled_at"):
                if (moment := getattr(order, name)) is not None:
                    setattr(order, name, moment - passed)
        for key in await session.scalars(select(IdempotencyKey)):
            assert key.completed_at is not None
            key.completed_at -= passed

    await shop.database.transact(work)


async def clear(shop: Shop) -> None:
    async def work(session: AsyncSession) -> None:
        for table in reversed(Base.metadata.sorted_tables):
            await session.execute(delete(table))

    await shop.database.transact(work)


# --- what callers do ----------------------------------------------------------------------------

KEY = st.sampled_from([None, "key-1", "key-2", "key-3", "key-4"])
DELTA = st.integers(-6, 6).filter(bool) | st.just(10**12)
CHANGES = st.fixed_dictionaries(
    {"name": st.sampled_from(["New", "Newer"])},
    optional={"price_cents": st.integers(4, 6), "is_active": st.sampled_from([True])},
)
NONSENSE: dict[str, Any] = {
    "create_order": None,
    "confirm_order": None,
    "cancel_order": None,
    "adjust_stock": {"delta": 1, "reason": "Counted"},
    "update_product": {"name": "New"},
    "deactivate_product": None,
}
# No sum of these comes near the end of a reservation, of the window to cancel, or of a key.
PAUSES = [4 * MINUTE, 7 * MINUTE, 25 * HOUR, 4 * DAY]


# What must have come up: a test that never sells anything would be green, too.
EXPECTED = {
    "create_product done",
    "create_order done",
    "confirm_order done",
    "cancel_order done",
    "replayed",
    "idempotency.key_reused",
    "request.invalid",
    "product.inactive",
    "stock.insufficient",
    "order.purchase_order_taken",
    "order.not_confirmable",
    "order.expired",
    "order.cancel_window_closed",
    "resource.version_mismatch",
}


class Callers(RuleBasedStateMachine):
    """What they do, one after the other, and what comes of it on both sides."""

    products = Bundle("products")
    orders = Bundle("orders")

    def __init__(
        self,
        shop: Shop,
        customers: dict[int, bool],
        loop: asyncio.AbstractEventLoop,
        answers: Counter[str],
    ) -> None:
        super().__init__()
        self.shop = shop
        self.answers = answers
        self.customers = [*customers, NOBODY]
        self.loop = loop
        self.model = Model(customers)
        self.sent: list[tuple[Request, Reply]] = []
        self.wait(clear(shop))

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the loop of the service, which is in another thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(STEP_SECONDS)

    def call(self, request: Request) -> Any:
        """Send it, compare all; return the id of what it created, for the bundle."""
        reply, products, orders, discrepancies = self.wait(self._call(request))
        created = reply.json["data"]["id"] if reply.status == 201 else None
        number = len(self.sent)
        self.sent.append((request, reply))
        expected = self.model.answer(request, number=number, new_id=created)
        self.compare_state(products, orders, discrepancies)
        self.compare_answer(reply, expected)
        done = "replayed" if expected.replay_of is not None else f"{request.operation} done"
        self.answers[expected.code or done] += 1
        return multiple() if created is None or expected.replay_of is not None else created

    async def _call(self, request: Request) -> tuple[Reply, Any, Any, Any]:
        reply = await send(self.shop, request)
        return reply, *await self._state()

    async def _state(self) -> Any:
        return await asyncio.gather(
            shown(self.shop, PRODUCTS), shown(self.shop, ORDERS), self.shop.discrepancies()
        )

    def compare_state(self, products: Any, orders: Any, discrepancies: Any) -> None:
        for view in orders:
            order = self.model.orders.get(view["id"])
            if order is not None and view["cancel_reason"] == "expired" != order.reason:
                self.model.tidied_up(order)
        assert orders == [self.model.view(order) for order in self.model.orders.values()]
        assert products == [self.model.view(product) for product in self.model.products.values()]
        assert discrepancies == []

    def compare_answer(self, reply: Reply, expected: Answer) -> None:
        assert (reply.headers.get("Idempotent-Replayed") == "true") == (expected.replay_of is not None)
        if expected.replay_of is not None:
            _, first = self.sent[expected.replay_of]
            same = ("Content-Type", "Location", "ETag")
            assert (reply.status, reply.body) == (first.status, first.body)
            assert [reply.headers.get(name) for name in same] == [first.headers.get(name) for name in same]
        elif expected.code is not None:
            problem = refused(reply, expected.status, expected.code, *expected.members)
            assert {name: problem[name] for name in expected.members} == expected.members
        else:
            assert reply.status == expected.status, reply.text
            assert expected.resource is not None
            assert viewed(reply.json["data"]) == self.model.view(expected.resource)
            assert reply.headers["ETag"] == f'"{expected.resource.version}"'
            assert ("Location" in reply.headers) == (expected.status == 201)

    # --- products ---------------------------------------------------------------------------------

    @initialize(target=products)
    def products_to_begin_with(self) -> Any:
        return multiple(*(self.create_product(sku, 2, "USD", 8) for sku in "AB"))

    @rule(
        target=products,
        sku=st.sampled_from("BCDE"),
        price=st.integers(0, 3),
        currency=st.sampled_from(["USD", "USD", "EUR"]),
        stock=st.integers(0, 8),
        key=KEY,
    )
    def another_product(self, sku: str, price: int, currency: str, stock: int, key: str | None) -> Any:
        return self.create_product(sku, price, currency, stock, key)

    def create_product(self, sku: str, price: int, currency: str, stock: int, key: str | None = None) -> Any:
        body = {"sku": sku, "name": sku * 2, "price_cents": price, "currency": currency, "stock": stock}
        return self.call(Request("create_product", body=body, key=key))

    @rule(product=products, changes=CHANGES, if_match=st.sampled_from([None, 1, 2]))
    def update_product(self, product: int, changes: dict[str, Any], if_match: int | None) -> None:
        self.call(Request("update_product", product, changes, if_match=if_match))

    @rule(product=products)
    def deactivate_product(self, product: int) -> None:
        self.call(Request("deactivate_product", product))

    @rule(product=products, delta=DELTA, key=KEY)
    def adjust_stock(self, product: int, delta: int, key: str | None) -> None:
        self.call(Request("adjust_stock", product, {"delta": delta, "reason": "Counted"}, key))

    # --- orders -----------------------------------------------------------------------------------

    @rule(target=orders, product=products, qty=st.integers(1, 5))
    def create_order(self, product: int, qty: int) -> Any:
        return self.order(0, [(product, qty)], None, None)

    @rule(
        target=orders,
        items=st.lists(st.tuples(products, st.integers(1, 3)), min_size=1, max_size=4),
        number=st.sampled_from([None, "PO-1", "PO-2"]),
        key=KEY,
    )
    def create_larger_order(self, items: list[tuple[int, int]], number: str | None, key: str | None) -> Any:
        return self.order(0, items, number, key)

    @rule(target=orders, customer=st.integers(1, 3), product=products, key=KEY)
    def create_order_of_someone_else(self, customer: int, product: int, key: str | None) -> Any:
        return self.order(customer, [(product, 1)], "PO-1", key)

    def order(self, customer: int, items: list[tuple[int, int]], number: str | None, key: str | None) -> Any:
        body: dict[str, Any] = {
            "customer_id": self.customers[customer],
            "items": [{"product_id": product, "qty": qty} for product, qty in items],
        }
        if number is not None:
            body["purchase_order_number"] = number
        return self.call(Request("create_order", body=body, key=key))

    @rule(target=orders, product=products)
    def create_order_and_forget_it(self, product: int) -> Any:
        order = self.order(0, [(product, 1)], None, None)
        self.time_passes(25 * HOUR)
        return order

    @rule(order=orders, number=st.integers(1, 1000))
    def confirm_order(self, order: int, number: int) -> None:
        self.call(Request("confirm_order", order, key=f"new-{number}"))

    @rule(product=products, later=st.sampled_from([4 * MINUTE, 11 * MINUTE]))
    def regret_an_order(self, product: int, later: int) -> None:
        self.order(0, [(product, 1)], None, None)
        ordered = max(self.model.orders, default=NOBODY)
        self.call(Request("confirm_order", ordered, key=f"regretted-{ordered}"))
        self.time_passes(later)
        self.call(Request("cancel_order", ordered))

    @rule(order=orders, key=KEY)
    def confirm_order_with_a_known_key(self, order: int, key: str | None) -> None:
        self.call(Request("confirm_order", order, key=key))

    @rule(order=orders, reason=st.sampled_from([None, "One", "Other"]), key=KEY)
    def cancel_order(self, order: int, reason: str | None, key: str | None) -> None:
        body = None if reason is None else {"reason": reason}
        self.call(Request("cancel_order", order, body, key))

    # --- requests -----------------------------------------------------------------------------------

    @rule(back=st.integers(1, 10))
    def repeat_a_request(self, back: int) -> None:
        self.call(self.sent[max(0, len(self.sent) - back)][0])

    @rule(operation=st.sampled_from(list(NONSENSE)), product=products, key=KEY)
    def ask_for_what_is_not_there(self, operation: str, product: int, key: str | None) -> None:
        body = NONSENSE[operation]
        if operation == "create_order":
            items = [{"product_id": each, "qty": 1} for each in (product, NOBODY)]
            body = {"customer_id": self.customers[0], "items": items}
        self.call(Request(operation, None if operation == "create_order" else NOBODY, body, key))

    @rule(product=products, key=KEY)
    def ask_for_nothing(self, product: int, key: str | None) -> None:
        self.order(0, [(product, 0)], None, key)
        self.call(Request("adjust_stock", product, {"delta": 0, "reason": "Counted"}, key))

    # --- what nobody asks for -----------------------------------------------------------------------

    @rule(pause=st.sampled_from(PAUSES))
    def time_passes(self, pause: int) -> None:
        self.model.time_passes(pause)
        self.wait(let_time_pass(self.shop, timedelta(seconds=pause)))

    @rule()
    def the_job_cancels_what_expired(self) -> None:
        assert self.wait(commands.expire_all(self.shop.database)) == self.model.tidy_up()
        self.compare_state(*self.wait(self._state()))

    @rule()
    def old_keys_are_purged(self) -> None:
        assert self.wait(self.shop.app[KEYS].purge(7)) == self.model.purge()


async def test_the_service_does_what_the_model_does(
    open_shop: OpenShop, peer: Client, record_property: Callable[[str, object], None]
) -> None:
    shop = await open_shop(expire_every=DAY)
    customers = {shop.customer_id: True, await new_customer(peer): True, await new_customer(peer): False}
    inactive = list(customers)[-1]
    reply = await peer.patch(f"/admin/customers/logic-delete/{inactive}")
    assert reply.status == 200
    loop = asyncio.get_running_loop()
    answers: Counter[str] = Counter()

    await asyncio.to_thread(
        run_state_machine_as_test,
        lambda: Callers(shop, customers, loop, answers),  # type: ignore[arg-type]  # not a class, but makes one
        settings=SETTINGS,
    )

    record_property("requests", answers.total())
    assert EXPECTED - set(answers) == set()
