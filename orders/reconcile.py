"""Proof that stock, reservations and totals are what the ledger says; it must find nothing."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, case, func, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.database import Database
from orders.models import Order, OrderEvent, OrderItem, Product, Status, StockMovement

ROWS_SHOWN = 100
"""Discrepancies listed of each kind; a broken ledger can have millions."""


async def find_discrepancies(database: Database) -> list[str]:
    """One line for each thing that is off, as of one moment of the database."""
    async with database.snapshot() as session:
        return [line for check in CHECKS async for line in check(session)]


async def _stock(session: AsyncSession) -> AsyncIterator[str]:
    """A product's stock and reserved are the sums of its movements."""
    ledger = (
        select(
            StockMovement.product_id,
            func.sum(StockMovement.stock_delta).label("stock"),
            func.sum(StockMovement.reserved_delta).label("reserved"),
        )
        .group_by(StockMovement.product_id)
        .subquery()
    )
    stock, reserved = func.coalesce(ledger.c.stock, 0), func.coalesce(ledger.c.reserved, 0)
    off = (
        select(Product.id, Product.stock, Product.reserved, stock.label("by_ledger"), reserved.label("held"))
        .outerjoin(ledger, ledger.c.product_id == Product.id)
        .where(or_(Product.stock != stock, Product.reserved != reserved))
    )
    for row in await _rows(session, off):
        yield (
            f"product {row.id}: stock {row.stock}, by ledger {row.by_ledger}; "
            f"reserved {row.reserved}, by ledger {row.held}"
        )


async def _reservations(session: AsyncSession) -> AsyncIterator[str]:
    """A product's reserved is what its CREATED orders hold."""
    held = (
        select(OrderItem.product_id, func.sum(OrderItem.qty).label("qty"))
        .join(Order, Order.id == OrderItem.order_id)
        .where(Order.status == Status.CREATED)
        .group_by(OrderItem.product_id)
        .subquery()
    )
    qty = func.coalesce(held.c.qty, 0)
    off = (
        select(Product.id, Product.reserved, qty.label("qty"))
        .outerjoin(held, held.c.product_id == Product.id)
        .where(Product.reserved != qty)
    )
    for row in await _rows(session, off):
        yield f"product {row.id}: reserved {row.reserved}, its created orders hold {row.qty}"


async def _sales(session: AsyncSession) -> AsyncIterator[str]:
    """An order moved each of its units as its status says: each unit once."""
    moved = (
        select(
            StockMovement.order_id,
            StockMovement.product_id,
            func.sum(StockMovement.stock_delta).label("stock"),
            func.sum(StockMovement.reserved_delta).label("reserved"),
        )
        .where(StockMovement.order_id.is_not(None))
        .group_by(StockMovement.order_id, StockMovement.product_id)
        .subquery()
    )
    off = (
        select(Order.id, Order.status, OrderItem.product_id, OrderItem.qty, moved.c.stock, moved.c.reserved)
        .join(OrderItem, OrderItem.order_id == Order.id)
        .outerjoin(
            moved, (moved.c.order_id == OrderItem.order_id) & (moved.c.product_id == OrderItem.product_id)
        )
        .where(
            or_(
                moved.c.stock.is_(None),
                moved.c.stock != _by_status(confirmed=-OrderItem.qty, created=literal(0)),
                moved.c.reserved != _by_status(confirmed=literal(0), created=OrderItem.qty + 0),
            )
        )
    )
    for row in await _rows(session, off):
        yield (
            f"order {row.id} ({row.status}): {row.qty} of product {row.product_id}, "
            f"moved stock {row.stock}, reserved {row.reserved}"
        )


async def _totals(session: AsyncSession) -> AsyncIterator[str]:
    """An order's total is the sum of its items."""
    items = (
        select(OrderItem.order_id, func.sum(OrderItem.qty * OrderItem.unit_price_cents).label("cents"))
        .group_by(OrderItem.order_id)
        .subquery()
    )
    cents = func.coalesce(items.c.cents, 0)
    off = (
        select(Order.id, Order.total_cents, cents.label("cents"))
        .outerjoin(items, items.c.order_id == Order.id)
        .where(Order.total_cents != cents)
    )
    for row in await _rows(session, off):
        yield f"order {row.id}: total {row.total_cents} cents, its items add up to {row.cents}"


async def _history(session: AsyncSession) -> AsyncIterator[str]:
    """An order's last event leads to its status."""
    last = (
        select(OrderEvent.order_id, func.max(OrderEvent.id).label("id"))
        .group_by(OrderEvent.order_id)
        .subquery()
    )
    off = (
        select(Order.id, Order.status, OrderEvent.to_status)
        .outerjoin(last, last.c.order_id == Order.id)
        .outerjoin(OrderEvent, OrderEvent.id == last.c.id)
        .where(or_(OrderEvent.to_status.is_(None), OrderEvent.to_status != Order.status))
    )
    for row in await _rows(session, off):
        yield f"order {row.id}: {row.status}, its last event leads to {row.to_status}"


CHECKS = (_stock, _reservations, _sales, _totals, _history)


def _by_status(*, created: ColumnElement[int], confirmed: ColumnElement[int]) -> ColumnElement[int]:
    return case(
        (Order.status == Status.CREATED, created), (Order.status == Status.CONFIRMED, confirmed), else_=0
    )


async def _rows(session: AsyncSession, off: Select[*tuple[Any, ...]]) -> Sequence[Row[*tuple[Any, ...]]]:
    return (await session.execute(off.order_by(off.selected_columns.id).limit(ROWS_SHOWN))).all()
