"""The service as a whole: its document, its ports, and refusals that belong to no operation."""

import pytest

from orders.settings import Settings
from tests.client import refused
from tests.documents import described, refusals
from tests.orders.shop import ORDERS, PRODUCTS, OpenShop, Shop

CREATE = f"{ORDERS}/create-order"
JSON = {"Content-Type": "application/json"}


async def test_the_document_is_valid_complete_and_true_to_the_router(shop: Shop) -> None:
    document = await described(shop.client, shop.app)

    assert {path for path in document["paths"] if path.startswith("/admin")} == {
        f"{PRODUCTS}/create-product",
        f"{PRODUCTS}/find-all",
        f"{PRODUCTS}/find-one/{{product_id}}",
        f"{PRODUCTS}/update/{{product_id}}",
        f"{PRODUCTS}/logic-delete/{{product_id}}",
        f"{PRODUCTS}/{{product_id}}/adjust-stock",
        CREATE,
        f"{ORDERS}/find-all",
        f"{ORDERS}/find-one/{{order_id}}",
        f"{ORDERS}/{{order_id}}/confirm",
        f"{ORDERS}/{{order_id}}/cancel",
        f"{ORDERS}/{{order_id}}/movements",
    }
    assert {
        "customer.not_found",
        "customer.inactive",
        "customers.unavailable",
        "product.not_found",
        "product.inactive",
        "order.currency_mixed",
        "order.purchase_order_taken",
        "stock.insufficient",
        "idempotency.key_reused",
    } <= refusals(document, "POST", CREATE)
    assert {"order.not_confirmable", "order.expired", "idempotency.key_missing"} <= refusals(
        document, "POST", f"{ORDERS}/{{order_id}}/confirm"
    )
    assert "order.cancel_window_closed" in refusals(document, "POST", f"{ORDERS}/{{order_id}}/cancel")
    assert "stock.limit" in refusals(document, "POST", f"{PRODUCTS}/{{product_id}}/adjust-stock")
    assert "resource.version_mismatch" in refusals(document, "PATCH", f"{PRODUCTS}/update/{{product_id}}")


async def test_the_service_says_who_and_how_it_is(shop: Shop) -> None:
    index, health = await shop.get("/"), await shop.get("/health")

    assert index.json["name"] == "orders"
    assert health.json == {"status": "ok", "database": "ok"}


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_what_is_no_order_is_refused_in_the_one_shape(open_shop: OpenShop) -> None:
    send = (await open_shop(max_body_bytes=1024)).client.request

    refused(await send("GET", f"{ORDERS}/nowhere"), 404, "route.not_found")
    refused(await send("GET", CREATE), 405, "route.method_not_allowed")
    refused(await send("POST", CREATE, data="{}"), 415, "request.media_type_unsupported")
    refused(await send("POST", CREATE, data="{", headers=JSON), 400, "request.malformed")
    refused(await send("POST", CREATE, data=" " * 1024 + "{}", headers=JSON), 413, "request.body_too_large")


def test_the_service_has_ports_of_its_own() -> None:
    fields = Settings.model_fields

    assert (fields["port"].default, fields["admin_port"].default) == (3002, 9002)
