"""Everything that only reads."""

from collections.abc import Sequence

from sqlalchemy import and_, bindparam, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload
from sqlalchemy.orm.attributes import set_committed_value

from chassis import dialects
from chassis.dialects import contains
from orders.errors import OrderNotFound, ProductNotFound
from orders.models import Order, OrderEvent, OrderItem, Product, Status, StockMovement
from orders.schemas import FindMovements, FindOrders, FindProducts

IS_EXPIRED = and_(Order.status == Status.CREATED, Order.expires_at <= dialects.now())
"""That an order waited too long for its confirmation."""


# Statements are made once, and what belongs to an order is not a relationship's to load; see rows.py.
_ORDER = select(Order).where(Order.id == bindparam("order_id"))
_ITEMS = select(OrderItem).where(OrderItem.order_id == bindparam("order_id")).order_by(OrderItem.line)
_HISTORY = select(OrderEvent).where(OrderEvent.order_id == bindparam("order_id")).order_by(OrderEvent.id)


async def get_order(session: AsyncSession, order_id: int) -> Order:
    """One order with its items and its history.

    Raises:
        OrderNotFound: there is none with this id.

    """
    this = {"order_id": order_id}
    order = await session.scalar(_ORDER, this)
    if order is None:
        raise OrderNotFound(f"There is no order {order_id}.")
    set_committed_value(order, "items", (await session.scalars(_ITEMS, this)).all())
    set_committed_value(order, "history", (await session.scalars(_HISTORY, this)).all())
    return order


async def find_movements(
    session: AsyncSession, order_id: int, query: FindMovements
) -> Sequence[StockMovement]:
    """Up to `limit` + 1 lines of the ledger that an order made, newest first.

    Raises:
        OrderNotFound: there is none with this id.

    """
    statement = select(StockMovement).where(StockMovement.order_id == order_id)
    statement = statement.order_by(StockMovement.id.desc()).limit(query.limit + 1)
    if (after := query.position()) is not None:
        statement = statement.where(StockMovement.id < after[0])
    found = (await session.scalars(statement)).all()
    if not found and await session.scalar(select(Order.id).where(Order.id == order_id)) is None:
        raise OrderNotFound(f"There is no order {order_id}.")
    return found


async def find_orders(session: AsyncSession, query: FindOrders) -> Sequence[Order]:
    """Up to `limit` + 1 orders with their items, newest first."""
    statement = select(Order).options(selectinload(Order.items)).limit(query.limit + 1)
    statement = statement.order_by(Order.created_at.desc(), Order.id.desc())
    # MariaDB's own choice goes by how many rows match, and a deep page may read all that come before it.
    statement = statement.with_hint(Order, f"FORCE INDEX ({_index_for(query)})", "mysql")
    if (after := query.position()) is not None:
        created_at, order_id = after
        # Written out: MariaDB finds no index range for a comparison of row values.
        earlier = or_(
            Order.created_at < created_at, and_(Order.created_at == created_at, Order.id < order_id)
        )
        statement = statement.where(Order.created_at <= created_at, earlier)
    if query.status is not None:
        statement = statement.where(Order.status == query.status)
    if query.customer_id is not None:
        statement = statement.where(Order.customer_id == query.customer_id)
    if query.correlation_id is not None:
        statement = statement.where(Order.correlation_id == query.correlation_id)
    if query.order_number is not None:
        statement = statement.where(Order.id == Order.id_of(query.order_number))
    if query.from_ is not None:
        statement = statement.where(Order.created_at >= query.from_)
    if query.to is not None:
        statement = statement.where(Order.created_at < query.to)
    return (await session.scalars(statement)).all()


def _index_for(query: FindOrders) -> str:
    """The index that has the rows of the list side by side and in its order."""
    if query.order_number is not None:
        return "PRIMARY"
    if query.correlation_id is not None:
        return "ix_orders_correlation"
    if query.customer_id is not None:
        return "ix_orders_customer"
    return "ix_orders_created" if query.status is None else "ix_orders_status"


async def is_any_expired(session: AsyncSession) -> bool:
    """Whether an order waited too long for its confirmation."""
    return await session.scalar(select(Order.id).where(IS_EXPIRED).limit(1)) is not None


async def get_product(session: AsyncSession, product_id: int) -> Product:
    """One product.

    Raises:
        ProductNotFound: there is none with this id.

    """
    product = await session.get(Product, product_id, populate_existing=True)
    if product is None:
        raise ProductNotFound(f"There is no product {product_id}.", product_ids=[product_id])
    return product


async def find_products(session: AsyncSession, query: FindProducts) -> Sequence[Product]:
    """Up to `limit` + 1 products, newest first."""
    statement = select(Product).order_by(Product.id.desc()).limit(query.limit + 1)
    if (after := query.position()) is not None:
        statement = statement.where(Product.id < after[0])
    if query.is_active is not None:
        statement = statement.where(Product.is_active == query.is_active)
    if query.search is not None:
        statement = statement.where(
            or_(contains(Product.sku, query.search), contains(Product.name, query.search))
        )
    return (await session.scalars(statement)).all()
