"""Products and orders to measure with, and the proof that they are right afterwards."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import cycle, islice

from sqlalchemy import ColumnElement, Insert, Subquery, func, insert, select, text, true
from sqlalchemy.ext.asyncio import AsyncSession

from bench.operations import MANY, Stock, Subject
from chassis import dialects
from chassis.database import Database
from orders.models import Base, Delta, Movement, Order, OrderEvent, OrderItem, Product, StockMovement
from orders.reconcile import find_discrepancies
from orders.stock import Change, write_changes

# Numbers that stand in no statement for anything else: the baseline replaces them in its text.
_FIRST_PRODUCT = 7_000_000_001
_FIRST_ORDER = 8_000_000_001
_STOCK = 10**9
_BATCH = 5_000


class WrongResult(Exception):  # noqa: N818 - says what is wrong
    """Something else was done than what was answered."""


class Shop:
    """The rows of the orders service in the database that is measured."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self) -> None:
        """Put the products on the shelves of an empty database."""
        now = datetime.now(UTC)
        common = {"price_cents": 100, "currency": "USD", "reserved": 0, "created_at": now, "updated_at": now}
        products = [
            {"id": _FIRST_PRODUCT + n, "sku": f"BENCH-{n}", "name": f"Product {n}", "stock": _STOCK, **common}
            for n in range(MANY)
        ]
        ledger = {"kind": Movement.INITIAL, "reserved_delta": 0, "correlation_id": "bench", "at": now}
        movements = [
            {"product_id": product["id"], "stock_delta": product["stock"], **ledger} for product in products
        ]

        async def work(session: AsyncSession) -> None:
            await session.execute(insert(Product), products)
            await session.execute(insert(StockMovement), movements)
            await session.execute(text(f"ALTER TABLE orders AUTO_INCREMENT = {_FIRST_ORDER}"))

        await self._database.transact(work)

    def without_orders(self, products: int) -> Iterator[Subject]:
        """So many products in turn, for ever."""
        return (Subject(_FIRST_PRODUCT + n, 0) for n in cycle(range(products)))

    async def with_orders(self, original: int, products: int, count: int) -> list[Subject]:
        """So many products in turn, each time with a new order of it, a copy of `original`."""
        subjects: list[Subject] = []
        while len(subjects) < count:
            missing = min(count - len(subjects), _BATCH)
            product_ids = [subject.product_id for subject in islice(self.without_orders(products), missing)]
            subjects += await self._database.transact(
                lambda session, ids=product_ids: _copy(session, original, ids)  # type: ignore[misc]  # bound as a default
            )
        return subjects

    async def stock(self) -> Stock:
        """What there is of all products together."""
        async with self._database.read() as session:
            found = await session.execute(select(func.sum(Product.stock), func.sum(Product.reserved)))
            return Stock(*map(int, found.one()))

    async def prove(self, before: Stock, answers: int, moves: Stock) -> None:
        """See to it that stock and reservations moved once for each answer, and that the ledger says so.

        Raises:
            WrongResult: they did not, or it does not.

        """
        now = await self.stock()
        wanted = Stock(before.stock + answers * moves.stock, before.reserved + answers * moves.reserved)
        if now != wanted:
            raise WrongResult(f"After {answers} answers there should be {wanted}, and there is {now}.")
        if discrepancies := await find_discrepancies(self._database):
            raise WrongResult("reconcile finds:\n" + "\n".join(discrepancies[:20]))


async def _copy(session: AsyncSession, original: int, product_ids: list[int]) -> list[Subject]:
    """Copy an order for each of the products, with everything that creating it has written."""
    first = (await session.scalars(select(func.max(Order.id)))).one() + 1
    subjects = [Subject(product_id, order_id) for order_id, product_id in enumerate(product_ids, first)]
    rows = [subject._asdict() for subject in subjects]
    given = dialects.values_of(dialects.name_of(session), "rows", product_id=int, order_id=int)
    given_rows = {"rows": json.dumps(rows)}
    order, product = {"order_id": given.c.order_id}, {"product_id": given.c.product_id}
    await session.execute(_copied(Order, Order.id == original, given, {"id": given.c.order_id}), given_rows)
    await session.execute(
        _copied(OrderItem, OrderItem.order_id == original, given, order | product), given_rows
    )
    await session.execute(_copied(OrderEvent, OrderEvent.order_id == original, given, order), given_rows)
    reserved = [
        Change(subject.product_id, Movement.RESERVE, Delta(0, 1), subject.order_id) for subject in subjects
    ]
    await write_changes(session, reserved, datetime.now(UTC))
    return subjects


def _copied(
    model: type[Base],
    which: ColumnElement[bool],
    given: Subquery,
    replaced: Mapping[str, ColumnElement[int]],
) -> Insert:
    """Insert a copy of the row for each given one, with these columns replaced and an id of its own."""
    table = Base.metadata.tables[model.__tablename__]
    columns = [column for column in table.columns if column.name != "id" or "id" in replaced]
    source = select(*(replaced.get(column.name, column) for column in columns))
    return insert(table).from_select(columns, source.join_from(model, given, true()).where(which))
