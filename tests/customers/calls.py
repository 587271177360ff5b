"""Calls of the customers API, as its callers make them."""

from typing import Any

from tests.client import Client, Reply
from tests.databases import TOKEN

ACME = {"name": "ACME Corporation", "email": "ops@acme.example.com", "phone": "+1234567890"}
PREFIX = "/admin/customers"
PEER = {"Authorization": f"Bearer {TOKEN}"}


async def create(client: Client, **fields: Any) -> Reply:
    return await client.post(f"{PREFIX}/create-customer", {**ACME, **fields})


async def created(client: Client, **fields: Any) -> dict[str, Any]:
    """A new customer."""
    reply = await create(client, **fields)
    assert reply.status == 201, reply.text
    customer: dict[str, Any] = reply.json["data"]
    return customer


async def find(client: Client, **query: Any) -> Reply:
    return await client.get(f"{PREFIX}/find-all", params={name: str(value) for name, value in query.items()})


async def names(client: Client, **query: Any) -> list[str]:
    """The names of the customers on a page."""
    return [customer["name"] for customer in (await find(client, **query)).json["data"]]


async def get(client: Client, customer_id: object, **headers: str) -> Reply:
    return await client.get(f"{PREFIX}/find-one/{customer_id}", headers=headers)


async def change(client: Client, customer_id: object, if_match: str | None = None, **fields: Any) -> Reply:
    headers = {} if if_match is None else {"If-Match": if_match}
    return await client.patch(f"{PREFIX}/update/{customer_id}", fields, headers=headers)


async def delete(client: Client, customer_id: object) -> Reply:
    return await client.patch(f"{PREFIX}/logic-delete/{customer_id}")
