"""What a shop must answer and hold, in plain Python: written from the contract, one request after the other.

It shares nothing with the service, not even the way: there are no counters here, only orders to add up. Money
is in cents, time in seconds since the beginning, and passes only by `time_passes`.
"""

import json
from dataclasses import dataclass, field
from typing import Any

MINUTE, HOUR, DAY = 60, 3_600, 86_400
RESERVATION_TTL, CANCEL_WINDOW, KEYS_KEPT = DAY, 10 * MINUTE, 7 * DAY
MAX_STOCK = 10**12


@dataclass(frozen=True)
class Request:
    """What a caller sends: the operation, the id in its path, its body, its key."""

    operation: str
    target: int | None = None
    body: Any = None
    key: str | None = None
    if_match: int | None = None


@dataclass
class Answer:
    """What comes back: a problem's code and own members, or a product or order.

    `replay_of` is the number of the first request with this key, if it was that one's answer.
    """

    status: int
    code: str | None = None
    members: dict[str, Any] = field(default_factory=dict)
    resource: "Product | Order | None" = None
    replay_of: int | None = None


class Refused(Exception):  # noqa: N818 - an outcome, not an error
    """The shop says no; `kept` for good if the request has a key."""

    def __init__(self, status: int, code: str, **members: Any) -> None:
        super().__init__(code)
        self.answer = Answer(status, code, members)
        self.kept = status in (404, 409)


@dataclass
class Product:
    id: int
    sku: str
    name: str
    price: int
    currency: str
    stock: int
    active: bool = True
    version: int = 1


@dataclass
class Line:
    """What an order has of a product, as the product was when the order was made."""

    product_id: int
    sku: str
    name: str
    qty: int
    price: int


@dataclass
class Order:
    id: int
    customer: int
    lines: list[Line]
    currency: str
    purchase_order_number: str | None
    expires: int
    status: str = "CREATED"
    version: int = 1
    confirmed: int | None = None
    reason: str | None = None

    def holds(self, product_id: int) -> int:
        """How many units of the product it has in it."""
        return sum(line.qty for line in self.lines if line.product_id == product_id)


@dataclass
class Kept:
    """What a key stands for."""

    request: str
    answer: Answer
    since: int
    number: int


class Model:
    """The shop. `customers` says who exists, and whether they may order."""

    def __init__(self, customers: dict[int, bool]) -> None:
        self.now = 0
        self.customers = customers
        self.products: dict[int, Product] = {}
        self.orders: dict[int, Order] = {}
        self.keys: dict[tuple[str, str], Kept] = {}

    # --- what there is ----------------------------------------------------------------------------

    def reserved(self, product: Product) -> int:
        """What orders hold that wait for their confirmation, be it too late or not."""
        return sum(order.holds(product.id) for order in self.orders.values() if order.status == "CREATED")

    def available(self, product: Product) -> int:
        """What the next order can have: what is held by nobody, or held too long."""
        waiting = [order for order in self.orders.values() if order.status == "CREATED"]
        return product.stock - sum(order.holds(product.id) for order in waiting if not self.too_late(order))

    def too_late(self, order: Order) -> bool:
        return order.status == "CREATED" and order.expires <= self.now

    def view(self, resource: Product | Order) -> dict[str, Any]:
        """What a product or order looks like now."""
        return self._view_of(resource) if isinstance(resource, Product) else _view_of_order(resource)

    def _view_of(self, product: Product) -> dict[str, Any]:
        reserved = self.reserved(product)
        return {
            "id": product.id,
            "sku": product.sku,
            "name": product.name,
            "price_cents": product.price,
            "currency": product.currency,
            "stock": product.stock,
            "reserved": reserved,
            "available": product.stock - reserved,
            "is_active": product.active,
        }

    # --- what time does ---------------------------------------------------------------------------

    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    def tidied_up(self, order: Order) -> None:
        """The shop canceled an order that was not confirmed in time; it may do so whenever it likes."""
        assert self.too_late(order), f"canceled without a reason: {order}"
        self._cancel(order, "expired")

    def tidy_up(self) -> int:
        """Cancel all such orders; return how many there were."""
        late = [order for order in self.orders.values() if self.too_late(order)]
        for order in late:
            self.tidied_up(order)
        return len(late)

    def purge(self) -> int:
        """Forget keys that were done with long ago; return how many."""
        old = [key for key, kept in self.keys.items() if self.now - kept.since > KEYS_KEPT]
        for key in old:
            del self.keys[key]
        return len(old)

    # --- what callers do --------------------------------------------------------------------------

    def answer(self, request: Request, *, number: int, new_id: int | None) -> Answer:
        """Do what the request asks for; `number` is its own, `new_id` the id of what it creates if any."""
        key = None
        try:
            asked = _checked(request)
            if request.key is not None and request.operation in KEYED:
                key = (request.operation, request.key)
                if (kept := self.keys.get(key)) is not None:
                    return _again(kept, asked)
            answer: Answer = getattr(self, request.operation)(request, new_id)
        except Refused as refused:
            answer = refused.answer
            if not refused.kept:
                return answer
            if key is not None:
                answer.members["retry_needs_new_key"] = True
        if key is not None:
            self.keys[key] = Kept(asked, answer, self.now, number)
        return answer

    def create_product(self, request: Request, new_id: int | None) -> Answer:
        body = request.body
        if any(product.sku == body["sku"] for product in self.products.values()):
            raise Refused(409, "product.sku_taken")
        assert new_id is not None, "it was not created"
        product = Product(
            new_id, body["sku"], body["name"], body["price_cents"], body["currency"], body["stock"]
        )
        self.products[new_id] = product
        return Answer(201, resource=product)

    def update_product(self, request: Request, _new_id: int | None) -> Answer:
        product = self._product(request.target)
        if request.if_match not in (None, product.version):
            raise Refused(412, "resource.version_mismatch")
        product.name = request.body.get("name", product.name)
        product.price = request.body.get("price_cents", product.price)
        product.active = request.body.get("is_active", product.active)
        product.version += 1
        return Answer(200, resource=product)

    def deactivate_product(self, request: Request, _new_id: int | None) -> Answer:
        product = self._product(request.target)
        if product.active:
            product.active = False
            product.version += 1
        return Answer(200, resource=product)

    def adjust_stock(self, request: Request, _new_id: int | None) -> Answer:
        product, delta = self._product(request.target), request.body["delta"]
        if self.available(product) + delta < 0:
            raise Refused(409, "stock.insufficient", shortages=[self._short(product, -delta)])
        if product.stock + delta > MAX_STOCK:
            raise Refused(409, "stock.limit")
        product.stock += delta
        return Answer(200, resource=product)

    def create_order(self, request: Request, new_id: int | None) -> Answer:
        customer, number = request.body["customer_id"], request.body.get("purchase_order_number")
        wanted = _merged(request.body["items"])
        if customer not in self.customers:
            raise Refused(404, "customer.not_found")
        if not self.customers[customer]:
            raise Refused(409, "customer.inactive")
        if missing := [each for each in wanted if each not in self.products]:
            raise Refused(404, "product.not_found", product_ids=missing)
        if inactive := [each for each in wanted if not self.products[each].active]:
            raise Refused(409, "product.inactive", product_ids=inactive)
        products = [self.products[each] for each in wanted]
        if len({product.currency for product in products}) > 1:
            raise Refused(409, "order.currency_mixed")
        for order in self.orders.values():
            if number is not None and (order.customer, order.purchase_order_number) == (customer, number):
                raise Refused(409, "order.purchase_order_taken", order_id=order.id)
        if short := [product for product in products if self.available(product) < wanted[product.id]]:
            shortages = [self._short(product, wanted[product.id]) for product in short]
            raise Refused(409, "stock.insufficient", shortages=shortages)
        assert new_id is not None, "it was not created"
        lines = [
            Line(product.id, product.sku, product.name, wanted[product.id], product.price)
            for product in products
        ]
        expires = self.now + RESERVATION_TTL
        order = Order(new_id, customer, lines, products[0].currency, number, expires)
        self.orders[new_id] = order
        return Answer(201, resource=order)

    def confirm_order(self, request: Request, _new_id: int | None) -> Answer:
        order = self._order(request.target)
        if order.status != "CREATED":
            raise Refused(409, "order.not_confirmable", order_status=order.status)
        if self.too_late(order):
            raise Refused(409, "order.expired")
        order.status, order.confirmed = "CONFIRMED", self.now
        order.version += 1
        for line in order.lines:
            self.products[line.product_id].stock -= line.qty
        return Answer(200, resource=order)

    def cancel_order(self, request: Request, _new_id: int | None) -> Answer:
        order = self._order(request.target)
        if order.status == "CONFIRMED":
            assert order.confirmed is not None
            if self.now - order.confirmed > CANCEL_WINDOW:
                raise Refused(409, "order.cancel_window_closed")
            for line in order.lines:
                self.products[line.product_id].stock += line.qty
        if order.status != "CANCELED":
            self._cancel(order, (request.body or {}).get("reason"))
        return Answer(200, resource=order)

    # --- the parts of it --------------------------------------------------------------------------

    def _product(self, product_id: int | None) -> Product:
        if product_id is None or product_id not in self.products:
            raise Refused(404, "product.not_found", product_ids=[product_id])
        return self.products[product_id]

    def _order(self, order_id: int | None) -> Order:
        if order_id is None or order_id not in self.orders:
            raise Refused(404, "order.not_found")
        return self.orders[order_id]

    def _cancel(self, order: Order, reason: str | None) -> None:
        order.status, order.reason = "CANCELED", reason
        order.version += 1

    def _short(self, product: Product, requested: int) -> dict[str, Any]:
        return {
            "product_id": product.id,
            "sku": product.sku,
            "requested": requested,
            "available": self.available(product),
        }


KEYED = ("create_product", "adjust_stock", "create_order", "confirm_order", "cancel_order")


def _again(kept: Kept, asked: str) -> Answer:
    """The answer to a request whose key is known."""
    if kept.request != asked:
        raise Refused(422, "idempotency.key_reused", retry_needs_new_key=True)
    first = kept.answer
    return Answer(first.status, first.code, first.members, replay_of=kept.number)


def _checked(request: Request) -> str:
    """Refuse what no shop could do; return what makes two requests the same, as text."""
    body = request.body
    if request.operation == "create_order":
        if not body["items"] or any(item["qty"] < 1 for item in body["items"]):
            raise Refused(400, "request.invalid")
        body = {**body, "items": list(_merged(body["items"]).items())}
    if request.operation == "adjust_stock" and body["delta"] == 0:
        raise Refused(400, "request.invalid")
    if request.operation == "confirm_order" and request.key is None:
        raise Refused(400, "idempotency.key_missing")
    return json.dumps([request.operation, request.target, body])


def _merged(items: list[dict[str, int]]) -> dict[int, int]:
    """Quantities by product, in the order in which the products come first."""
    wanted: dict[int, int] = {}
    for item in items:
        wanted[item["product_id"]] = wanted.get(item["product_id"], 0) + item["qty"]
    return wanted


def _view_of_order(order: Order) -> dict[str, Any]:
    return {
        "id": order.id,
        "order_number": f"ORD-{order.id:08}",
        "customer_id": order.customer,
        "status": order.status,
        "currency": order.currency,
        "total_cents": sum(line.qty * line.price for line in order.lines),
        "purchase_order_number": order.purchase_order_number,
        "cancel_reason": order.reason,
        "was_confirmed": order.confirmed is not None,
        "was_canceled": order.status == "CANCELED",
        "seconds_to_confirm": RESERVATION_TTL,
        "items": [
            {
                "product_id": line.product_id,
                "sku": line.sku,
                "name": line.name,
                "qty": line.qty,
                "unit_price_cents": line.price,
                "subtotal_cents": line.qty * line.price,
            }
            for line in order.lines
        ],
    }
