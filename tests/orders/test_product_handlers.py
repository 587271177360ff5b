"""The products API over HTTP, on both databases."""

import asyncio
from typing import Any

import pytest

from orders.models import MAX_STOCK, Product
from tests.client import refused
from tests.orders.shop import PRODUCTS, Level, Shop

DESK = {"sku": "DESK-OAK", "name": "Oak desk", "price_cents": 129_900, "currency": "EUR", "stock": 25}
NOBODY = 999_999
TIME = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"


async def make_desk(shop: Shop) -> Any:
    reply = await shop.post(f"{PRODUCTS}/create-product", DESK)
    return reply.json["data"]


# --- create-product -----------------------------------------------------------------------------


async def test_a_product_is_created_with_its_first_stock(shop: Shop) -> None:
    reply = await shop.post(f"{PRODUCTS}/create-product", DESK)

    assert reply.status == 201
    shown = reply.json["data"]
    assert shown == {
        **DESK,
        "id": shown["id"],
        "reserved": 0,
        "available": 25,
        "is_active": True,
        "created_at": shown["created_at"],
        "updated_at": shown["created_at"],
    }
    assert reply.headers["Location"] == f"{PRODUCTS}/find-one/{shown['id']}"
    assert (await shop.get(reply.headers["Location"])).body == reply.body
    assert await shop.ledger(shown["id"]) == [("initial", 25, 0)]


async def test_a_product_is_priced_in_dollars_and_out_of_stock_unless_told_otherwise(shop: Shop) -> None:
    reply = await shop.post(f"{PRODUCTS}/create-product", {"sku": "A", "name": "A", "price_cents": 0})

    assert reply.status == 201
    assert (reply.json["data"]["currency"], reply.json["data"]["stock"]) == ("USD", 0)


async def test_the_largest_product_survives_the_way_to_the_database_and_back(shop: Shop) -> None:
    largest = {"sku": "S" * 64, "name": "é" * 199 + "🪑", "price_cents": 10_000_000_000, "stock": MAX_STOCK}

    reply = await shop.post(f"{PRODUCTS}/create-product", largest)

    assert reply.status == 201
    assert largest.items() <= reply.json["data"].items()


async def test_a_sku_names_one_product(shop: Shop) -> None:
    await make_desk(shop)

    reply = await shop.post(f"{PRODUCTS}/create-product", DESK)

    refused(reply, 409, "product.sku_taken")
    assert await shop.count(Product) == 1


async def test_skus_are_compared_to_the_letter(shop: Shop) -> None:
    await make_desk(shop)

    reply = await shop.create_product(sku="desk-oak")

    assert reply.status == 201


async def test_of_many_at_once_one_gets_the_sku(shop: Shop) -> None:
    replies = await asyncio.gather(*(shop.create_product(sku="DESK-OAK") for _ in range(10)))

    assert sorted(reply.status for reply in replies) == [201] + 9 * [409]
    assert await shop.count(Product) == 1


async def test_everything_wrong_with_a_product_is_listed_at_once(shop: Shop) -> None:
    body = {
        "sku": "no spaces",
        "name": "  ",
        "price_cents": "100",
        "currency": "usd",
        "stock": -1,
        "reserved": 3,
        "id": 7,
    }

    reply = await shop.post(f"{PRODUCTS}/create-product", body)

    problem = refused(reply, 400, "request.invalid")
    assert {error["pointer"] for error in problem["errors"]} == {f"#/{name}" for name in body}
    assert await shop.count(Product) == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sku", ""),
        ("sku", "S" * 65),
        ("sku", "-A"),
        ("name", ""),
        ("name", "N" * 201),
        ("price_cents", -1),
        ("price_cents", 1.5),
        ("price_cents", 10_000_000_001),
        ("price_cents", None),
        ("currency", "EURO"),
        ("stock", MAX_STOCK + 1),
        ("stock", 2**64),
        ("stock", True),
    ],
)
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_product_that_cannot_be_is_refused(shop: Shop, field: str, value: Any) -> None:
    reply = await shop.create_product(**{field: value})

    problem = refused(reply, 400, "request.invalid")
    assert [error["pointer"] for error in problem["errors"]] == [f"#/{field}"]


# --- find-one -----------------------------------------------------------------------------------


async def test_a_product_shows_what_orders_hold_of_it(shop: Shop) -> None:
    product_id = await shop.product(stock=10)

    await shop.created({product_id: 3})

    shown = (await shop.get(f"{PRODUCTS}/find-one/{product_id}")).json["data"]
    assert (shown["stock"], shown["reserved"], shown["available"]) == (10, 3, 7)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", f"{PRODUCTS}/find-one/{NOBODY}", None),
        ("PATCH", f"{PRODUCTS}/update/{NOBODY}", {"name": "Nothing"}),
        ("PATCH", f"{PRODUCTS}/logic-delete/{NOBODY}", None),
        ("POST", f"{PRODUCTS}/{NOBODY}/adjust-stock", {"delta": 1, "reason": "Found"}),
    ],
)
async def test_what_is_not_there_is_a_404(shop: Shop, method: str, path: str, body: Any) -> None:
    reply = await shop.client.request(method, path, json=body)

    problem = refused(reply, 404, "product.not_found", "product_ids")
    assert problem["product_ids"] == [NOBODY]


@pytest.mark.parametrize("given", ["0", "-1", "abc", "1.0", "9223372036854775808", "%20"])
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_an_id_is_a_positive_64_bit_integer(shop: Shop, given: str) -> None:
    replies = [
        await shop.get(f"{PRODUCTS}/find-one/{given}"),
        await shop.client.patch(f"{PRODUCTS}/update/{given}", {"name": "Nothing"}),
        await shop.client.patch(f"{PRODUCTS}/logic-delete/{given}"),
        await shop.post(f"{PRODUCTS}/{given}/adjust-stock", {"delta": 1, "reason": "Found"}),
    ]

    for reply in replies:
        problem = refused(reply, 400, "request.invalid")
        assert [error["pointer"] for error in problem["errors"]] == ["path:product_id"]


# --- update -------------------------------------------------------------------------------------


async def test_an_update_changes_what_is_given_and_nothing_else(shop: Shop) -> None:
    desk = await make_desk(shop)

    reply = await shop.client.patch(f"{PRODUCTS}/update/{desk['id']}", {"price_cents": 99_900})

    assert reply.status == 200
    updated_at = reply.json["data"]["updated_at"]
    assert reply.json["data"] == {**desk, "price_cents": 99_900, "updated_at": updated_at}
    assert updated_at > desk["updated_at"]


async def test_an_update_of_the_version_that_was_read_succeeds(shop: Shop) -> None:
    desk = await make_desk(shop)
    read = await shop.get(f"{PRODUCTS}/find-one/{desk['id']}")

    reply = await shop.client.patch(
        f"{PRODUCTS}/update/{desk['id']}", {"name": "Desk"}, headers={"If-Match": read.headers["ETag"]}
    )

    assert (reply.status, reply.json["data"]["name"]) == (200, "Desk")
    assert reply.headers["ETag"] != read.headers["ETag"]


async def test_an_update_of_a_version_that_is_gone_is_refused(shop: Shop) -> None:
    desk = await make_desk(shop)
    path = f"{PRODUCTS}/update/{desk['id']}"
    read = await shop.get(f"{PRODUCTS}/find-one/{desk['id']}")
    await shop.client.patch(path, {"price_cents": 1})

    reply = await shop.client.patch(path, {"price_cents": 2}, headers={"If-Match": read.headers["ETag"]})

    refused(reply, 412, "resource.version_mismatch")
    shown = await shop.get(f"{PRODUCTS}/find-one/{desk['id']}")
    assert shown.json["data"]["price_cents"] == 1


async def test_of_many_updates_of_one_version_one_wins(shop: Shop) -> None:
    desk = await make_desk(shop)
    path, headers = f"{PRODUCTS}/update/{desk['id']}", {"If-Match": '"1"'}

    replies = await asyncio.gather(
        *(shop.client.patch(path, {"price_cents": price}, headers=headers) for price in range(10))
    )

    assert sorted(reply.status for reply in replies) == [200] + 9 * [412]
    (won,) = (reply for reply in replies if reply.status == 200)
    assert (await shop.get(f"{PRODUCTS}/find-one/{desk['id']}")).body == won.body


async def test_selling_a_product_does_not_change_its_version(shop: Shop) -> None:
    product_id = await shop.product()
    read = await shop.get(f"{PRODUCTS}/find-one/{product_id}")

    await shop.confirmed({product_id: 1})

    again = await shop.get(f"{PRODUCTS}/find-one/{product_id}")
    assert again.headers["ETag"] == read.headers["ETag"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "#"),
        ({"stock": 5}, "#/stock"),
        ({"sku": "NEW"}, "#/sku"),
        ({"currency": "EUR"}, "#/currency"),
        ({"price_cents": None}, "#/price_cents"),
        ({"name": ""}, "#/name"),
        ({"is_active": "no"}, "#/is_active"),
    ],
)
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_an_update_that_cannot_be_is_refused(shop: Shop, body: Any, pointer: str) -> None:
    product_id = await shop.product()

    reply = await shop.client.patch(f"{PRODUCTS}/update/{product_id}", body)

    problem = refused(reply, 400, "request.invalid")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]


# --- logic-delete -------------------------------------------------------------------------------


async def test_a_deleted_product_stays_but_is_not_sold_any_more(shop: Shop) -> None:
    product_id = await shop.product()

    reply = await shop.client.patch(f"{PRODUCTS}/logic-delete/{product_id}")

    assert (reply.status, reply.json["data"]["is_active"]) == (200, False)
    refused(await shop.create({product_id: 1}), 409, "product.inactive", "product_ids")
    assert (await shop.get(f"{PRODUCTS}/find-one/{product_id}")).body == reply.body


async def test_deleting_again_changes_nothing(shop: Shop) -> None:
    product_id = await shop.product()
    first = await shop.client.patch(f"{PRODUCTS}/logic-delete/{product_id}")

    again = await shop.client.patch(f"{PRODUCTS}/logic-delete/{product_id}")

    assert (again.status, again.body, again.headers["ETag"]) == (200, first.body, first.headers["ETag"])


async def test_a_deleted_product_can_be_sold_again(shop: Shop) -> None:
    product_id = await shop.product()
    await shop.client.patch(f"{PRODUCTS}/logic-delete/{product_id}")

    reply = await shop.client.patch(f"{PRODUCTS}/update/{product_id}", {"is_active": True})

    assert reply.json["data"]["is_active"] is True
    assert (await shop.create({product_id: 1})).status == 201


async def test_an_order_made_before_its_product_was_deleted_can_be_confirmed(shop: Shop) -> None:
    product_id = await shop.product()
    order_id = await shop.created({product_id: 1})
    await shop.client.patch(f"{PRODUCTS}/logic-delete/{product_id}")

    reply = await shop.confirm(order_id)

    assert reply.status == 200


# --- adjust-stock -------------------------------------------------------------------------------


async def test_stock_is_counted_in_and_out_and_the_ledger_says_why(shop: Shop) -> None:
    product_id = await shop.product(stock=10)

    counted_in = await shop.adjust_stock(product_id, 5)
    counted_out = await shop.adjust_stock(product_id, -7)

    assert (counted_in.status, counted_in.json["data"]["stock"]) == (200, 15)
    assert (counted_out.status, counted_out.json["data"]["stock"]) == (200, 8)
    assert await shop.ledger(product_id) == [("initial", 10, 0), ("adjust", 5, 0), ("adjust", -7, 0)]
    assert await shop.discrepancies() == []


async def test_what_orders_hold_cannot_be_counted_out(shop: Shop) -> None:
    product_id = await shop.product(sku="DESK-OAK", stock=10)
    await shop.created({product_id: 3})

    reply = await shop.adjust_stock(product_id, -8)

    problem = refused(reply, 409, "stock.insufficient", "shortages")
    assert problem["shortages"] == [
        {"product_id": product_id, "sku": "DESK-OAK", "requested": 8, "available": 7}
    ]
    assert await shop.level(product_id) == Level(stock=10, reserved=3)
    assert len(await shop.ledger(product_id)) == 2


async def test_what_is_available_can_be_counted_out_to_the_last_unit(shop: Shop) -> None:
    product_id = await shop.product(stock=10)
    await shop.created({product_id: 3})

    reply = await shop.adjust_stock(product_id, -7)

    assert reply.status == 200
    assert await shop.level(product_id) == Level(stock=3, reserved=3)


async def test_stock_has_a_limit(shop: Shop) -> None:
    product_id = await shop.product(stock=1)

    reply = await shop.adjust_stock(product_id, MAX_STOCK)

    refused(reply, 409, "stock.limit")
    assert await shop.level(product_id) == Level(stock=1, reserved=0)


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["#/delta", "#/reason"]),
        ({"delta": 0, "reason": "Nothing"}, ["#/delta"]),
        ({"delta": 1, "reason": " "}, ["#/reason"]),
        ({"delta": 1, "reason": "R" * 201}, ["#/reason"]),
        ({"delta": MAX_STOCK + 1, "reason": "Much"}, ["#/delta"]),
        ({"delta": "1", "reason": "Text"}, ["#/delta"]),
        ({"delta": 1, "reason": "Set", "stock": 1}, ["#/stock"]),
    ],
)
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_count_that_cannot_be_is_refused(shop: Shop, body: Any, pointers: list[str]) -> None:
    product_id = await shop.product()

    reply = await shop.post(f"{PRODUCTS}/{product_id}/adjust-stock", body)

    problem = refused(reply, 400, "request.invalid")
    assert [error["pointer"] for error in problem["errors"]] == pointers
    assert len(await shop.ledger(product_id)) == 1


# --- find-all -----------------------------------------------------------------------------------


async def found(shop: Shop, **filters: str) -> list[str]:
    reply = await shop.get(f"{PRODUCTS}/find-all", params=filters)
    assert reply.status == 200
    return [product["sku"] for product in reply.json["data"]]


@pytest.fixture
async def furniture(shop: Shop) -> Shop:
    """A shop with four products, one of which is not sold any more."""
    for sku, name in [
        ("DESK-1", "Oak desk"),
        ("DESK_2", "Pine 100% desk"),
        ("LAMP", "Lámpara"),
        ("OLD", "Stool"),
    ]:
        await shop.create_product(sku=sku, name=name)
    (product_id,) = [
        product["id"]
        for product in (await shop.get(f"{PRODUCTS}/find-all")).json["data"]
        if product["sku"] == "OLD"
    ]
    await shop.client.patch(f"{PRODUCTS}/logic-delete/{product_id}")
    return shop


async def test_products_are_listed_newest_first(furniture: Shop) -> None:
    assert await found(furniture) == ["OLD", "LAMP", "DESK_2", "DESK-1"]


@pytest.mark.parametrize(
    ("search", "skus"),
    [
        ("desk", ["DESK_2", "DESK-1"]),
        ("oak", ["DESK-1"]),
        ("_2", ["DESK_2"]),
        ("0% d", ["DESK_2"]),
        ("LAMP", ["LAMP"]),
        ("nothing", []),
        ("'; DROP TABLE products; --", []),
    ],
)
async def test_products_are_searched_by_sku_and_name(furniture: Shop, search: str, skus: list[str]) -> None:
    assert await found(furniture, search=search) == skus


async def test_products_are_listed_by_whether_they_are_sold(furniture: Shop) -> None:
    assert await found(furniture, is_active="false") == ["OLD"]
    assert await found(furniture, is_active="true") == ["LAMP", "DESK_2", "DESK-1"]


async def test_filters_are_anded(furniture: Shop) -> None:
    assert await found(furniture, search="o", is_active="false") == ["OLD"]
    assert await found(furniture, search="desk", is_active="false") == []


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "query:limit"),
        ("limit=101", "query:limit"),
        ("is_active=maybe", "query:is_active"),
        ("search=", "query:search"),
        ("cursor=none", "query:cursor"),
        ("colour=red", "query:colour"),
        ("limit=1&limit=2", "query:limit"),
    ],
)
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_list_that_cannot_be_is_refused(shop: Shop, query: str, pointer: str) -> None:
    reply = await shop.get(f"{PRODUCTS}/find-all?{query}")

    problem = refused(reply, 400, "request.invalid")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
