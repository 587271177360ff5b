"""Orders of many requests at once: lock them in id order, insert and write them as sets.

What stock.py is for products, this is for orders.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import ColumnElement, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from chassis import correlation, dialects
from chassis.database import Lost, changed
from orders.models import Movement, Order, OrderEvent, Product, Status
from orders.stock import NEVER, Change, lock_products, write_changes

PurchaseOrders = dict[tuple[int, str], int | None]
"""Order ids by customer and purchase order number."""


async def find_purchase_orders(session: AsyncSession, wanted: Sequence[tuple[int, str]]) -> PurchaseOrders:
    """The orders that have these numbers of these customers already."""
    if not wanted:
        return {}
    statement = select(Order.customer_id, Order.purchase_order_number, Order.id).where(
        tuple_(Order.customer_id, Order.purchase_order_number).in_(wanted)
    )
    rows = await session.execute(statement)
    return {(customer_id, number): order_id for customer_id, number, order_id in rows if number is not None}


async def lock_orders(session: AsyncSession, which: ColumnElement[bool]) -> tuple[dict[int, Order], datetime]:
    """Lock orders in id order and load their items; return them by id, and the database's clock.

    They are detached, like the products of `lock_products`.
    """
    statement = (
        select(Order, dialects.now().label("now"))
        .where(which)
        .order_by(Order.id)
        .options(selectinload(Order.items))
        .with_for_update()
        .with_hint(Order, "FORCE INDEX (PRIMARY)", "mysql")
    )
    rows = (await session.execute(statement)).all()
    for row in rows:
        session.expunge(row.Order)
    return {row.Order.id: row.Order for row in rows}, rows[0].now if rows else NEVER


async def insert_orders(
    session: AsyncSession, created: list[tuple[Order, list[Change]]], now: datetime
) -> None:
    """Insert orders with their items, their reservations and the first event of their history.

    Raises:
        Lost: a purchase order number was taken since `find_purchase_orders`.

    """
    if not created:
        return
    session.add_all(order for order, _ in created)
    try:
        await session.flush()
    except IntegrityError as error:
        if dialects.is_duplicate(error):
            raise Lost("duplicate") from error
        raise
    changes = [replace(change, order_id=order.id) for order, reserved in created for change in reserved]
    await write_changes(session, changes, now)
    await _append_events(session, [(order, None) for order, _ in created], now)


async def write_orders(
    session: AsyncSession, moved: list[tuple[Order, Status | None]], now: datetime
) -> None:
    """Write orders that left the given status: their products, the ledger, themselves, their history.

    Raises:
        Lost: a row is not what it was when it was locked.

    """
    if not moved:
        return
    products, _ = await lock_products(
        session, {item.product_id for order, _ in moved for item in order.items}
    )
    changes = [
        _stock_change(products[item.product_id], order, item.qty, left)
        for order, left in moved
        for item in order.items
    ]
    await write_changes(session, changes, now)
    rows = [
        {"id": order.id, "version": order.version - 1, "reason": order.cancel_reason} for order, _ in moved
    ]
    given = dialects.values_of(session, rows, id=int, version=int, reason=str).c
    first = moved[0][0]
    statement = (
        update(Order)
        .where(
            Order.id == given.id, Order.id.in_([row["id"] for row in rows]), Order.version == given.version
        )
        .values(
            status=first.status,
            cancel_reason=given.reason,
            version=Order.version + 1,
            **({"confirmed_at": now} if first.status == Status.CONFIRMED else {"canceled_at": now}),
        )
    )
    if await changed(session, statement) != len(rows):
        raise Lost("stale")
    await _append_events(session, moved, now)


def _stock_change(product: Product, order: Order, qty: int, left: Status | None) -> Change:
    """Apply to the product what the order's step means for it."""
    if order.status == Status.CONFIRMED:
        return Change(product.id, Movement.SALE, product.sell(qty), order.id)
    if left == Status.CREATED:
        return Change(product.id, Movement.RELEASE, product.release(qty), order.id)
    return Change(product.id, Movement.RETURN, product.take_back(qty), order.id)


async def _append_events(
    session: AsyncSession, moved: list[tuple[Order, Status | None]], now: datetime
) -> None:
    await session.execute(
        insert(OrderEvent),
        [
            {
                "order_id": order.id,
                "from_status": left,
                "to_status": order.status,
                "reason": order.cancel_reason,
                "correlation_id": correlation.current(),
                "at": now,
            }
            for order, left in moved
        ],
    )
