"""The steps of the smoke test: what each does, what it must find, what is said of it.

Without the services, a customer, products and an order there is nothing to look at: what goes wrong there
ends the test. The steps after that are independent, so that one run tells all that is wrong.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from chassis.http import One
from chassis.pagination import Page
from orchestrator.answers import JOB_PATH, saga_url
from orchestrator.errors import StockInsufficient
from orchestrator.models import Status
from orchestrator.schemas import JobView, SagaView
from orchestrator.smoke.services import Reply, Say, Service, SmokeFailed
from orchestrator.smoke.views import Customer, Movement, Order, Product, Shortage

PRICES_CENTS = (1250, 310)
QUANTITIES = (2, 3)
STOCK = 10
STEPS = ["validate_customer", "create_order", "confirm_order"]
Step = Callable[[], Awaitable[str]]


class SmokeTest:
    """One run; `name` is part of the names of all it makes, and its correlation id."""

    def __init__(
        self,
        name: str,
        customers: Service,
        orders: Service,
        orchestrator: Service,
        say: Say,
    ) -> None:
        self._name = name
        self._customers = customers
        self._orders = orders
        self._orchestrator = orchestrator
        self._say = say
        self._failures: list[tuple[str, SmokeFailed]] = []
        self._customer: Customer | None = None
        self._products: list[Product] = []
        self._request: dict[str, Any] = {}
        self._answer: Reply
        self._job: JobView

    async def run(self) -> bool:
        """Take the steps, clean up, say what failed and what to look at; True if nothing failed."""
        needed: tuple[Step, ...] = (self.services, self.customer, self.products, self.order)
        independent: tuple[Step, ...] = (self.replay, self.shortage, self.stock, self.ledger, self.books)
        try:
            for step in needed:
                if not await self._take(step):
                    break
            else:
                for step in independent:
                    await self._take(step)
        finally:
            if self._customer or self._products:
                await self._take(self.cleanup)
        self._report()
        return not self._failures

    async def _take(self, step: Step) -> bool:
        name = step.__name__
        try:
            found = await step()
        except SmokeFailed as failure:
            self._failures.append((name, failure))
            self._say(f"FAILED  {name:10} {failure}")
            return False
        self._say(f"ok      {name:10} {found}")
        return True

    def _report(self) -> None:
        if not self._failures:
            self._say("The smoke test succeeded.")
            return
        self._say("The smoke test FAILED.")
        for name, failure in self._failures:
            self._say(f"  {name}: {failure}")
            if failure.look_at:
                self._say(f"    Look at {failure.look_at}.")
        self._say(
            f"Everything it did has the correlation id {self._name}, in logs, traces, sagas and orders;"
            f" where the orchestrator runs: python -m orchestrator trace {self._name}"
        )

    # --- what the others need ---------------------------------------------------------------------

    async def services(self) -> str:
        """All three are there and reach their databases."""
        services = (self._customers, self._orders, self._orchestrator)
        answers = await asyncio.gather(*(one.ready() for one in services), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return ", ".join(
            f"{one.name} {version} at {one.url}" for one, version in zip(services, answers, strict=True)
        )

    async def customer(self) -> str:
        """Somebody who may order."""
        body = {"name": f"Smoke test {self._name}", "email": f"{self._name}@example.com"}
        reply = await self._customers.post("/admin/customers/create-customer", body)
        self._customer = reply.read(One[Customer]).data
        return f"{body['name']}, id {self._customer.id}"

    async def products(self) -> str:
        """Something that can be ordered."""
        for number, price_cents in enumerate(PRICES_CENTS, start=1):
            sku = f"{self._name}-{number}"
            body = {"sku": sku, "name": "Smoke test", "price_cents": price_cents, "stock": STOCK}
            reply = await self._orders.post("/admin/products/create-product", body, key=sku)
            self._products.append(reply.read(One[Product]).data)
        return ", ".join(f"{one.sku} with a stock of {one.stock}" for one in self._products)

    async def order(self) -> str:
        """The main job."""
        assert self._customer is not None  # noqa: S101 - the steps before made it
        items = [
            {"product_id": one.id, "qty": qty} for one, qty in zip(self._products, QUANTITIES, strict=True)
        ]
        self._request = {"customer_id": self._customer.id, "items": items}
        self._answer = await self._orchestrator.post(JOB_PATH, self._request, key=self._name)
        self._job = self._answer.read(JobView)
        order = self._job.data.order
        _expect("the order's status", order.status, "CONFIRMED")
        _expect("the order's customer", self._job.data.customer.id, self._customer.id)
        _expect("the order's items", [{"product_id": i.product_id, "qty": i.qty} for i in order.items], items)
        _expect("the order's total in cents", order.total_cents, _total_cents())
        _expect("the correlation id", self._job.correlation_id, self._name)
        return f"{order.order_number} {order.status}, {order.total_cents} cents, saga {self._job.saga_id}"

    # --- what must be true of it ------------------------------------------------------------------

    async def replay(self) -> str:
        """The same request with the same key has the same answer."""
        again = await self._orchestrator.post(JOB_PATH, self._request, key=self._name)
        _expect("Idempotent-Replayed", again.replayed, wanted=True)
        if again.body != self._answer.body:
            raise SmokeFailed(
                f"the same request with the same key was answered by other bytes: {again.body.decode()!r},"
                f" the first time {self._answer.body.decode()!r}"
            )
        return f"the same {len(again.body)} bytes, Idempotent-Replayed: true"

    async def shortage(self) -> str:
        """More than there is, is refused and changes nothing."""
        product, left = self._products[0], STOCK - QUANTITIES[0]
        request = {**self._request, "items": [{"product_id": product.id, "qty": left + 1}]}
        key = f"{self._name}-shortage"
        reply = await self._orchestrator.post(JOB_PATH, request, key=key, status=HTTPStatus.CONFLICT)
        refusal = reply.read(Shortage)
        _expect("the code of the refusal", refusal.code, StockInsufficient.code)
        short = {"product_id": product.id, "sku": product.sku, "requested": left + 1, "available": left}
        _expect("its shortages", refusal.shortages, [short])
        return f"{HTTPStatus.CONFLICT.value} {refusal.code}: {left + 1} requested, {left} available"

    async def stock(self) -> str:
        """The stock of the products went down by the order, and nothing of it is reserved any more."""
        moved = []
        for before, qty in zip(self._products, QUANTITIES, strict=True):
            now = await self._product(before.id)
            _expect(f"the stock of {before.sku}", now.stock, STOCK - qty)
            _expect(f"what is reserved of {before.sku}", now.reserved, 0)
            _expect(f"what is available of {before.sku}", now.available, STOCK - qty)
            moved.append(f"{before.sku} {before.stock} -> {now.stock}")
        return ", ".join(moved)

    async def ledger(self) -> str:
        """The lines of the ledger that the order made add up to what the stock moved by."""
        path = f"/admin/orders/{self._job.data.order.id}/movements?limit=100"
        lines = (await self._orders.get(path)).read(Page[Movement]).data
        stock, reserved = Counter[int](), Counter[int]()
        for line in lines:
            stock[line.product_id] += line.stock_delta
            reserved[line.product_id] += line.reserved_delta
        moved = {one.id: -qty for one, qty in zip(self._products, QUANTITIES, strict=True)}
        _expect("the sums of the ledger by product", dict(stock), moved)
        _expect("what the ledger still holds, by product", dict(reserved), dict.fromkeys(moved, 0))
        return (
            f"{len(lines)} lines add up to {', '.join(map(str, moved.values()))} and leave nothing reserved"
        )

    async def books(self) -> str:
        """There is one order, with the total of its lines, and one saga that made it."""
        assert self._customer is not None  # noqa: S101 - the order is its
        path = f"/admin/orders/find-all?customer_id={self._customer.id}"
        found = (await self._orders.get(path)).read(Page[Order]).data
        _expect("the orders of the customer", [one.id for one in found], [self._job.data.order.id])
        _expect("its status", found[0].status, "CONFIRMED")
        _expect("its total in cents", found[0].total_cents, _total_cents())
        reply = await self._orchestrator.get(saga_url(self._job.saga_id))
        saga = reply.read(One[SagaView]).data
        _expect("the saga's status", saga.status, Status.SUCCEEDED)
        steps = [(step.step.value, step.outcome) for step in saga.steps]
        _expect("the saga's steps", steps, [(step, "done") for step in STEPS])
        return f"one order, {found[0].total_cents} cents, one saga {saga.status.value}"

    # --- the end ----------------------------------------------------------------------------------

    async def cleanup(self) -> str:
        """What the test made is sold no more and orders no more."""
        for product in self._products:
            reply = await self._orders.patch(f"/admin/products/logic-delete/{product.id}")
            _expect(f"whether {product.sku} is active", reply.read(One[Product]).data.is_active, wanted=False)
        if self._customer is not None:
            reply = await self._customers.patch(f"/admin/customers/logic-delete/{self._customer.id}")
            _expect("whether the customer is active", reply.read(One[Customer]).data.is_active, wanted=False)
        return "customer and products are inactive; the order stays, as orders do"

    async def _product(self, product_id: int) -> Product:
        return (await self._orders.get(f"/admin/products/find-one/{product_id}")).read(One[Product]).data


def _total_cents() -> int:
    return sum(price * qty for price, qty in zip(PRICES_CENTS, QUANTITIES, strict=True))


def _expect(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise SmokeFailed(f"{what}: wanted {wanted!r}, found {found!r}")
