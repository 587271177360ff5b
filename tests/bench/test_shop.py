"""A cell that is fast and wrong must not get into the table."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from bench.operations import Stock
from bench.shop import Shop, WrongResult
from chassis.database import Database
from orders.models import Product
from orders.settings import Settings
from tests.databases import MakeSettings

pytestmark = pytest.mark.parametrize("backend", ["mariadb"], indirect=True)


@pytest.fixture
async def database(make_settings: MakeSettings) -> AsyncIterator[Database]:
    opened = Database(make_settings(Settings))
    yield opened
    await opened.close()


@pytest.fixture
async def shop(database: Database) -> Shop:
    shop = Shop(database)
    await shop.open()
    return shop


async def test_stock_that_did_not_move_with_the_answers_is_wrong(shop: Shop) -> None:
    before = await shop.stock()

    with pytest.raises(WrongResult, match="After 3 answers"):
        await shop.prove(before, 3, Stock(-1, -1))


async def test_stock_that_moved_without_the_ledger_is_wrong(database: Database, shop: Shop) -> None:
    before = await shop.stock()
    await database.transact(lambda session: _take_one(session, next(shop.without_orders(1)).product_id))

    with pytest.raises(WrongResult, match="reconcile"):
        await shop.prove(before, 1, Stock(-1, 0))


async def test_no_answers_and_no_moves_are_right(shop: Shop) -> None:
    await shop.prove(await shop.stock(), 0, Stock(-1, -1))


async def _take_one(session: AsyncSession, product_id: int) -> None:
    await session.execute(update(Product).where(Product.id == product_id).values(stock=Product.stock - 1))
