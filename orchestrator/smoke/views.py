"""What the smoke test looks at in the answers of the services; they may say more."""

from typing import Any

from chassis.http import View


class Index(View):
    """Who answers at an address."""

    name: str
    version: str


class Customer(View):
    """A customer."""

    id: int
    is_active: bool


class Product(View):
    """A product."""

    id: int
    sku: str
    stock: int
    reserved: int
    available: int
    is_active: bool


class Order(View):
    """An order, as orders has it."""

    id: int
    status: str
    total_cents: int


class Movement(View):
    """A line of the ledger."""

    product_id: int
    stock_delta: int
    reserved_delta: int


class Shortage(View):
    """A refusal for want of stock."""

    code: str
    shortages: list[dict[str, Any]]
