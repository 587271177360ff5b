"""Orders of many requests at once: lock them in id order, insert and write them as sets.

What stock.py is for products, this is for orders.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache

from sqlalchemy import Update, bindparam, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.attributes import set_committed_value

from chassis import correlation, dialects
from chassis.auth import principal
from chassis.database import Lost, changed
from orders.models import Base, Movement, Order, OrderEvent, OrderItem, Product, Status
from orders.stock import NEVER, Change, lock_products, write_changes

PurchaseOrders = dict[tuple[int, str], int | None]
"""Order ids by customer and purchase order number."""


# Statements are made once, see stock.py. The items are not a relationship's to load: `selectinload`
# would put its statement together anew each time.
_LOCK = (
    select(Order, dialects.now().label("now"))
    .where(Order.id.in_(bindparam("ids", expanding=True)))
    .order_by(Order.id)
    .with_for_update()
    .with_hint(Order, "FORCE INDEX (PRIMARY)", "mysql")
)
_ITEMS = (
    select(OrderItem).where(OrderItem.order_id.in_(bindparam("ids", expanding=True))).order_by(OrderItem.line)
)
_ORDERS = Base.metadata.tables[Order.__tablename__]
_APPEND = insert(Base.metadata.tables[OrderEvent.__tablename__])


@cache
def _move(dialect: str, status: Status) -> Update:
    orders = _ORDERS.c
    given = dialects.values_of(dialect, "rows", id=int, version=int, reason=str).c
    moment = orders.confirmed_at if status == Status.CONFIRMED else orders.canceled_at
    return (
        update(_ORDERS)
        .where(orders.id == given.id, orders.id.in_(bindparam("ids", expanding=True)))
        .where(orders.version == given.version)
        .values(
            {
                orders.status: bindparam("status"),
                orders.cancel_reason: given.reason,
                orders.version: orders.version + 1,
                moment: bindparam("now"),
            }
        )
    )


async def find_purchase_orders(session: AsyncSession, wanted: Sequence[tuple[int, str]]) -> PurchaseOrders:
    """The orders that have these numbers of these customers already."""
    if not wanted:
        return {}
    statement = select(Order.customer_id, Order.purchase_order_number, Order.id).where(
        tuple_(Order.customer_id, Order.purchase_order_number).in_(wanted)
    )
    rows = await session.execute(statement)
    return {(customer_id, number): order_id for customer_id, number, order_id in rows if number is not None}


async def lock_orders(session: AsyncSession, order_ids: Sequence[int]) -> tuple[dict[int, Order], datetime]:
    """Lock orders in id order and load their items; return them by id, and the database's clock.

    They are detached, like the products of `lock_products`.
    """
    rows = (await session.execute(_LOCK, {"ids": sorted(order_ids)})).all()
    items: dict[int, list[OrderItem]] = {row.Order.id: [] for row in rows}
    for item in await session.scalars(_ITEMS, {"ids": list(items)}):
        items[item.order_id].append(item)
    for row in rows:
        set_committed_value(row.Order, "items", items[row.Order.id])
    session.expunge_all()
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
    for (order, _), order_id in zip(
        created, await dialects.next_ids(session, Order.id, len(created)), strict=True
    ):
        if order_id is not None:
            order.id = order_id
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
    status = Status(moved[0][0].status)
    parameters = {"rows": json.dumps(rows), "ids": [row["id"] for row in rows], "status": status, "now": now}
    if await changed(session, _move(dialects.name_of(session), status), parameters) != len(rows):
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
        _APPEND,
        [
            {
                "order_id": order.id,
                "from_status": left,
                "to_status": order.status,
                "reason": order.cancel_reason,
                "principal": principal.current(),
                "correlation_id": correlation.current(),
                "at": now,
            }
            for order, left in moved
        ],
    )
