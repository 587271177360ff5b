"""Sample data, through the public APIs: one customer, and products with stock.

Safe to repeat: what is there already is looked up, and a product that sold well is filled up again.
`python -m dev.sample` does it at CUSTOMERS_API_BASE and ORDERS_API_BASE: k8s/demo runs it in a cluster, from
this file and calls.py alone.
"""

import asyncio
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

from dev import calls

if TYPE_CHECKING:
    from dev.stack import Stack

STOCK = 500
CUSTOMER = {"name": "ACME Corporation", "email": "ops@acme.com", "phone": "+1234567890"}
PRODUCTS = (
    {"sku": "DESK-OAK", "name": "Oak desk", "price_cents": 129_900},
    {"sku": "CHAIR-ERGO", "name": "Ergonomic chair", "price_cents": 45_950},
    {"sku": "LAMP-LED", "name": "LED desk lamp", "price_cents": 7_990},
    {"sku": "MONITOR-27", "name": '27" monitor', "price_cents": 32_400},
    {"sku": "CABLE-USBC", "name": "USB-C cable, 2 m", "price_cents": 1_250},
)


@dataclass(frozen=True, slots=True)
class Sample:
    """What there is now, as the services show it."""

    customer: dict[str, Any]
    products: list[dict[str, Any]]


async def load(http: aiohttp.ClientSession, services: "Stack") -> Sample:
    """See to it that the sample data is there."""
    return await load_at(http, services.customers.url, services.orders.url)


async def load_at(http: aiohttp.ClientSession, customers_url: str, orders_url: str) -> Sample:
    """The same for services at these addresses."""
    customers, products = f"{customers_url}/admin/customers", f"{orders_url}/admin/products"
    customer = await _ensure(http, customers, "create-customer", CUSTOMER, unique="email")
    found = [
        await _ensure(http, products, "create-product", {**product, "stock": STOCK}, unique="sku")
        for product in PRODUCTS
    ]
    return Sample(customer, [await _filled_up(http, products, product) for product in found])


async def _ensure(
    http: aiohttp.ClientSession, url: str, create: str, body: dict[str, Any], *, unique: str
) -> dict[str, Any]:
    """Create it, or find the one that has its `unique` field already."""
    created = await calls.post(http, f"{url}/{create}", body, expect=(201, 409))
    if created.status == 201:  # noqa: PLR2004 - created
        data: dict[str, Any] = created.json["data"]
        return data
    found = await calls.get(http, f"{url}/find-all", search=body[unique], limit="100")
    return next(item for item in found.json["data"] if item[unique] == body[unique])


async def _filled_up(http: aiohttp.ClientSession, url: str, product: dict[str, Any]) -> dict[str, Any]:
    if (missing := STOCK - product["available"]) <= STOCK // 2:
        return product
    body = {"delta": missing, "reason": "sample data filled up"}
    data: dict[str, Any] = (
        await calls.post(http, f"{url}/{product['id']}/adjust-stock", body, expect=(200,))
    ).json["data"]
    return data


async def main() -> int:
    """Load it, say what there is, and return the exit code."""
    try:
        async with aiohttp.ClientSession() as http:
            found = await load_at(http, os.environ["CUSTOMERS_API_BASE"], os.environ["ORDERS_API_BASE"])
    except (aiohttp.ClientError, calls.UnexpectedReply) as error:
        print(f"sample data: {error}", file=sys.stderr)
        return 1
    print(f"customer {found.customer['id']}: {found.customer['name']}")
    for product in found.products:
        print(f"product {product['id']}: {product['sku']}, {product['available']} available")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
