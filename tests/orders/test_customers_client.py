"""Orders ask customers, for every new order, whether its customer may order."""

import pytest
from aiohttp import web
from pytest_aiohttp import AiohttpServer

from orders.models import Order
from tests.client import Client, refused
from tests.orders.shop import CUT_OFF, ORDERS, Level, OpenShop, Shop

NOBODY = 999_999


async def test_an_order_needs_a_customer(shop: Shop) -> None:
    product_id = await shop.product()

    reply = await shop.create({product_id: 1}, customer_id=NOBODY)

    refused(reply, 404, "customer.not_found")
    assert await shop.count(Order) == 0


async def test_an_order_needs_an_active_customer(shop: Shop, peer: Client) -> None:
    product_id = await shop.product()
    await peer.patch(f"/admin/customers/logic-delete/{shop.customer_id}")

    reply = await shop.create({product_id: 1})

    refused(reply, 409, "customer.inactive")
    assert await shop.level(product_id) == Level(stock=10, reserved=0)


async def test_while_customers_is_down_no_order_is_made_but_those_there_are_can_be_confirmed(
    shop: Shop, open_shop: OpenShop
) -> None:
    product_id = await shop.product()
    order_id = await shop.created({product_id: 1})
    cut_off = await open_shop(**CUT_OFF)

    reply = await cut_off.create({product_id: 1})

    problem = refused(reply, 503, "customers.unavailable")
    assert problem["retryable"] is True
    assert reply.headers["Retry-After"] == "2"
    assert (await cut_off.client.admin.get("/readyz")).status == 200  # or the outage of one would spread
    assert (await cut_off.confirm(order_id)).status == 200
    assert await shop.count(Order) == 1


async def test_a_service_token_that_customers_refuses_is_no_fault_of_the_caller(open_shop: OpenShop) -> None:
    shop = await open_shop(service_token="another-token")
    product_id = await shop.product()

    reply = await shop.create({product_id: 1})

    problem = refused(reply, 503, "customers.unavailable")
    assert "another-token" not in reply.text
    assert problem["retryable"] is True


@pytest.mark.parametrize(
    ("status", "text", "refusal"),
    [
        (500, '{"detail": "SELECT * FROM customers"}', (503, "customers.unavailable")),
        (200, "<h1>It works!</h1>", (503, "customers.unavailable")),
        (200, '{"data": null}', (502, "peer.broken")),
        (200, '{"data": {"is_active": "yes"}}', (502, "peer.broken")),
        (404, '{"code": "route.not_found"}', (503, "customers.unavailable")),
        (302, "{}", (503, "customers.unavailable")),
    ],
)
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_an_answer_of_customers_that_is_not_understood_makes_no_order(
    open_shop: OpenShop, aiohttp_server: AiohttpServer, status: int, text: str, refusal: tuple[int, str]
) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=text, content_type="application/json")

    fake = web.Application()
    fake.router.add_get("/admin/customers/internal/customers/{id}", answer)
    url = str((await aiohttp_server(fake)).make_url("/"))
    shop = await open_shop(**CUT_OFF | {"customers_api_base": url})

    reply = await shop.create({await shop.product(): 1})

    refused(reply, *refusal)
    assert text not in reply.text
    assert await shop.count(Order) == 0


async def test_customers_is_asked_with_the_callers_correlation_id_and_trace(
    open_shop: OpenShop, aiohttp_server: AiohttpServer
) -> None:
    asked: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request)
        return web.json_response({"data": {"is_active": True}})

    fake = web.Application()
    fake.router.add_get("/admin/customers/internal/customers/{id}", answer)
    shop = await open_shop(customers_api_base=str((await aiohttp_server(fake)).make_url("/")))
    body = {"customer_id": 7, "items": [{"product_id": await shop.product(), "qty": 1}]}

    reply = await shop.post(f"{ORDERS}/create-order", body, headers={"X-Correlation-Id": "req-456"})

    assert reply.status == 201
    (request,) = asked
    assert request.path == "/admin/customers/internal/customers/7"
    assert request.headers["Authorization"] == "Bearer the-token-of-the-tests"
    assert request.headers["X-Correlation-Id"] == "req-456"
    assert "traceparent" in request.headers
