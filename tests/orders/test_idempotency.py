"""What keys mean to orders beside the contract, which is tested in `tests/idempotency`; on both databases."""

import asyncio

from sqlalchemy import update

from chassis import dialects
from orders.models import IdempotencyKey, Product
from tests.client import Reply, refused
from tests.orders.shop import CUT_OFF, PRODUCTS, Level, OpenShop, Shop


def is_replay(reply: Reply, of: Reply) -> bool:
    """Whether it is the same answer, marked as given again."""
    same = ("Content-Type", "Location", "ETag")
    return (
        (reply.status, reply.body) == (of.status, of.body)
        and [reply.headers.get(name) for name in same] == [of.headers.get(name) for name in same]
        and reply.headers.get("Idempotent-Replayed") == "true"
    )


async def test_without_a_key_every_request_is_one_of_its_own(shop: Shop) -> None:
    product_id = await shop.product(stock=10)

    replies = [await shop.create({product_id: 3}) for _ in range(2)]

    assert [reply.status for reply in replies] == [201, 201]
    assert await shop.level(product_id) == Level(stock=10, reserved=6)
    assert await shop.count(IdempotencyKey) == 0


async def test_an_order_with_its_lines_written_otherwise_is_the_same_request(shop: Shop) -> None:
    product_id = await shop.product(stock=10)
    first = await shop.create({product_id: 3}, key="key-1")

    in_parts = await shop.create(
        {}, items=[{"qty": qty, "product_id": product_id} for qty in (1, 2)], key="key-1"
    )

    assert is_replay(in_parts, of=first)


async def test_a_replay_does_not_ask_customers_again(shop: Shop, open_shop: OpenShop) -> None:
    product_id = await shop.product()
    first = await shop.create({product_id: 1}, key="key-1")
    cut_off = await open_shop(**CUT_OFF)

    again = await cut_off.create({product_id: 1}, key="key-1")

    assert is_replay(again, of=first)


async def test_an_order_that_could_not_be_decided_leaves_its_key_free(
    shop: Shop, open_shop: OpenShop
) -> None:
    cut_off = await open_shop(**CUT_OFF)
    product_id = await shop.product()

    undecided = await cut_off.create({product_id: 1}, key="key-1")
    decided = await shop.create({product_id: 1}, key="key-1")

    problem = refused(undecided, 503, "customers.unavailable")
    assert problem["retryable"] is True
    assert decided.status == 201
    assert "Idempotent-Replayed" not in decided.headers


async def test_of_different_orders_in_flight_with_one_key_one_is_made(shop: Shop) -> None:
    product_id = await shop.product(stock=10)

    replies = await asyncio.gather(*(shop.create({product_id: qty}, key="key-1") for qty in (1, 2, 3)))

    assert sorted(reply.status for reply in replies) == [201, 422, 422]
    assert await shop.discrepancies() == []


async def test_a_product_with_a_key_is_added_once(shop: Shop) -> None:
    body = {"sku": "DESK-OAK", "name": "Oak desk", "price_cents": 129900}

    first, again = [await shop.post(f"{PRODUCTS}/create-product", body, key="key-1") for _ in range(2)]

    assert first.status == 201
    assert is_replay(again, of=first)
    assert await shop.count(Product) == 1


async def test_a_refusal_that_undid_what_was_written_is_kept_too(shop: Shop) -> None:
    body = {"sku": "DESK-OAK", "name": "Oak desk", "price_cents": 129900}
    await shop.post(f"{PRODUCTS}/create-product", body)

    first, again = [await shop.post(f"{PRODUCTS}/create-product", body, key="key-1") for _ in range(2)]

    assert refused(first, 409, "product.sku_taken", "retry_needs_new_key")["retry_needs_new_key"] is True
    assert is_replay(again, of=first)
    assert await shop.count(Product) == 1


async def test_a_key_that_is_not_purged_yet_is_still_known(shop: Shop) -> None:
    product_id = await shop.product(stock=10)
    first = await shop.create({product_id: 3}, key="key-1")
    a_year_ago = update(IdempotencyKey).values(completed_at=dialects.seconds_from_now(-365 * 86_400))
    await shop.database.transact(lambda session: session.execute(a_year_ago))

    assert is_replay(await shop.create({product_id: 3}, key="key-1"), of=first)
