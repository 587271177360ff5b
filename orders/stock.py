"""Stock of many products at once: lock them in id order, write what changed in one statement.

Every command locks orders before products and both in id order, so that no two transactions can
wait for each other in a circle. The UPDATE repeats the rules in its WHERE clause: should a row ever
have changed under the lock, it writes nothing and the transaction begins again.
"""

import json
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from sqlalchemy import Update, bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from chassis import correlation, dialects
from chassis.database import Lost, changed
from orders.models import Base, Delta, Movement, Product, StockMovement

NEVER = datetime.max.replace(tzinfo=UTC)  # the clock came with the rows: without rows nothing can happen


@dataclass(frozen=True, slots=True)
class Change:
    """One row of the ledger."""

    product_id: int
    kind: Movement
    delta: Delta
    order_id: int | None = None
    reason: str | None = None


# Statements are made once: SQLAlchemy takes longer to put one together than to send it.
_LOCK = (
    select(Product, dialects.now().label("now"))
    .where(Product.id.in_(bindparam("ids", expanding=True)))
    .order_by(Product.id)
    .with_for_update()
    .with_hint(Product, "FORCE INDEX (PRIMARY)", "mysql")  # a scan of a small table would lock all of it
)
_PRODUCTS = Base.metadata.tables[Product.__tablename__]
_APPEND = insert(Base.metadata.tables[StockMovement.__tablename__])


@cache
def _apply(dialect: str) -> Update:
    products = _PRODUCTS.c
    given = dialects.values_of(dialect, "rows", id=int, stock_delta=int, reserved_delta=int).c
    stock, reserved = products.stock + given.stock_delta, products.reserved + given.reserved_delta
    return (
        update(_PRODUCTS)
        .where(products.id == given.id, products.id.in_(bindparam("ids", expanding=True)))
        .where(reserved >= 0, reserved <= stock)
        .values(stock=stock, reserved=reserved, updated_at=bindparam("now"))
    )


async def lock_products(
    session: AsyncSession, product_ids: Collection[int]
) -> tuple[dict[int, Product], datetime]:
    """Lock the products that exist, in id order; return them by id, and the database's clock.

    The products are detached: `write_changes` writes them, in one statement. The unit of work would send one
    a row.
    """
    rows = (await session.execute(_LOCK, {"ids": sorted(product_ids)})).all()
    for row in rows:
        session.expunge(row.Product)
    now: datetime = rows[0].now if rows else NEVER
    return {row.Product.id: row.Product for row in rows}, now


async def write_changes(session: AsyncSession, changes: list[Change], now: datetime) -> None:
    """Apply the changes to the products and append them to the ledger: two statements.

    Raises:
        Lost: a product is not what it was when it was locked.

    """
    stock: dict[int, int] = defaultdict(int)
    reserved: dict[int, int] = defaultdict(int)
    for change in changes:
        stock[change.product_id] += change.delta.stock
        reserved[change.product_id] += change.delta.reserved
    rows = [
        {"id": product_id, "stock_delta": stock[product_id], "reserved_delta": reserved[product_id]}
        for product_id in sorted(stock)
    ]
    parameters = {"rows": json.dumps(rows), "ids": sorted(stock), "now": now}
    if await changed(session, _apply(dialects.name_of(session)), parameters) != len(stock):
        raise Lost("stale")
    correlation_id = correlation.current()
    await session.execute(
        _APPEND,
        [
            {
                "product_id": change.product_id,
                "order_id": change.order_id,
                "kind": change.kind.value,
                "stock_delta": change.delta.stock,
                "reserved_delta": change.delta.reserved,
                "reason": change.reason,
                "correlation_id": correlation_id,
                "at": now,
            }
            for change in changes
        ],
    )
