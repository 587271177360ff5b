from aiohttp import web

from customers.settings import Settings
from tests.client import Client
from tests.documents import described, refusals


async def test_the_document_is_valid_complete_and_true_to_the_router(
    client: Client, app: web.Application
) -> None:
    document = await described(client, app)

    assert {path for path in document["paths"] if path.startswith("/admin")} == {
        "/admin/customers/create-customer",
        "/admin/customers/find-all",
        "/admin/customers/find-one/{customer_id}",
        "/admin/customers/update/{customer_id}",
        "/admin/customers/logic-delete/{customer_id}",
        "/admin/customers/internal/customers/{customer_id}",
    }
    assert "customer.email_taken" in refusals(document, "POST", "/admin/customers/create-customer")
    assert "resource.version_mismatch" in refusals(document, "PATCH", "/admin/customers/update/{customer_id}")
    assert "customer.not_found" in refusals(document, "GET", "/admin/customers/find-one/{customer_id}")


async def test_the_service_says_who_it_is(client: Client) -> None:
    assert (await client.get("/")).json["name"] == "customers"


def test_the_service_has_ports_of_its_own() -> None:
    fields = Settings.model_fields

    assert (fields["port"].default, fields["admin_port"].default) == (3001, 9001)
