"""What is measured: the requests, the answers they must get, and what they do to the stock."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple


class Stock(NamedTuple):
    """Units of all products together, on hand and reserved."""

    stock: int
    reserved: int


class Subject(NamedTuple):
    """What one request is about: a product, and an order of it where there has to be one."""

    product_id: int
    order_id: int


@dataclass(frozen=True, slots=True)
class Site:
    """Where requests go, and for which customer."""

    orders: str
    orchestrator: str
    customer_id: int


@dataclass(frozen=True, slots=True)
class Request:
    """One request; its idempotency key is made when it is sent."""

    method: str
    url: str
    body: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One kind of request.

    `orders` tells whether it needs none, any, or a new one every time. `moves` is what a request does
    to the stock.
    """

    name: str
    request: Callable[[Site, Subject], Request]
    status: int
    orders: Literal["none", "any", "new"]
    moves: Stock
    products: tuple[int, ...]
    """With how many products to measure it: one means that all requests want the same row."""


def _find_order(site: Site, subject: Subject) -> Request:
    return Request("GET", f"{site.orders}/admin/orders/find-one/{subject.order_id}")


def _create_order(site: Site, subject: Subject) -> Request:
    return Request("POST", f"{site.orders}/admin/orders/create-order", _basket(site, subject))


def _confirm_order(site: Site, subject: Subject) -> Request:
    return Request("POST", f"{site.orders}/admin/orders/{subject.order_id}/confirm")


def _create_and_confirm_order(site: Site, subject: Subject) -> Request:
    url = f"{site.orchestrator}/orchestrator/create-and-confirm-order"
    return Request("POST", url, _basket(site, subject))


def _basket(site: Site, subject: Subject) -> dict[str, Any]:
    return {"customer_id": site.customer_id, "items": [{"product_id": subject.product_id, "qty": 1}]}


MANY = 1000

FIND = Operation("find-one", _find_order, 200, "any", Stock(0, 0), (MANY,))
CREATE = Operation("create", _create_order, 201, "none", Stock(0, +1), (MANY, 1))
CONFIRM = Operation("confirm", _confirm_order, 200, "new", Stock(-1, -1), (MANY, 1))
CREATE_AND_CONFIRM = Operation(
    "create-and-confirm", _create_and_confirm_order, 201, "none", Stock(-1, 0), (MANY,)
)
OPERATIONS = (FIND, CREATE, CONFIRM, CREATE_AND_CONFIRM)
