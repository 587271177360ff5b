"""The rules across rows: create, confirm, cancel and expire orders; each takes a list of requests.

A command locks the orders, locks the products, decides in memory and writes, in a fixed number of
statements. What it decides for a request is its Order or the Problem that refuses it; for a refused
request it writes nothing. It runs inside `Database.transact` and may be run again from the start.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from chassis import correlation
from chassis.auth import principal
from chassis.database import Database, Lost, after_commit
from chassis.errors import Problem
from orders.errors import (
    CurrencyMixed,
    OrderNotFound,
    ProductInactive,
    ProductNotFound,
    PurchaseOrderTaken,
    Shortage,
    StockInsufficient,
)
from orders.metrics import count_expired
from orders.models import Movement, Order, OrderItem, Product, Status
from orders.queries import IS_EXPIRED
from orders.rows import PurchaseOrders, find_purchase_orders, insert_orders, lock_orders, write_orders
from orders.stock import Change, lock_products

EXPIRED = "expired"
EXPIRE_BATCH = 500


@dataclass(frozen=True, slots=True)
class NewOrder:
    """A request to create: `quantities` by product id, `ttl` of the reservation."""

    customer_id: int
    quantities: dict[int, int]
    purchase_order_number: str | None
    ttl: timedelta

    @property
    def purchase_order(self) -> tuple[int, str] | None:
        """What must be unique: the number, for its customer."""
        return None if self.purchase_order_number is None else (self.customer_id, self.purchase_order_number)


@dataclass(frozen=True, slots=True)
class Cancellation:
    """A request to cancel; `window` is how long after its confirmation an order may be canceled."""

    order_id: int
    reason: str | None
    window: timedelta


async def create_orders(session: AsyncSession, requests: Sequence[NewOrder]) -> list[Order | Problem]:
    """Reserve stock for new orders.

    Raises:
        Lost: what is short is held by expired orders, which are canceled before the next attempt, or
            a purchase order number was taken meanwhile.

    """
    wanted = {product_id for request in requests for product_id in request.quantities}
    products, now = await lock_products(session, wanted)
    purchase_orders = [request.purchase_order for request in requests if request.purchase_order is not None]
    taken = await find_purchase_orders(session, purchase_orders)
    outcomes: list[Order | Problem] = []
    created: list[tuple[Order, list[Change]]] = []
    short: set[int] = set()
    for request in requests:
        problem = _unorderable(request, products) or _already_ordered(request, taken)
        if problem is None and (shortages := _shortages(request, products)):
            short.update(shortage.product_id for shortage in shortages)
            problem = StockInsufficient.of(shortages)
        if problem is not None:
            outcomes.append(problem)
            continue
        reserved = [
            Change(product_id, Movement.RESERVE, products[product_id].reserve(qty))
            for product_id, qty in request.quantities.items()
        ]
        order = _new_order(request, products, now)
        if request.purchase_order is not None:
            taken[request.purchase_order] = None
        outcomes.append(order)
        created.append((order, reserved))
    if short:
        await release_expired(session, short)
    await insert_orders(session, created, now)
    return outcomes


async def confirm_orders(session: AsyncSession, order_ids: Sequence[int]) -> list[Order | Problem]:
    """Turn reservations into sales."""
    orders, now = await lock_orders(session, order_ids)
    outcomes: list[Order | Problem] = []
    confirmed: list[tuple[Order, Status | None]] = []
    for order_id in order_ids:
        try:
            order = _existing(orders, order_id)
            order.confirm(now)
        except Problem as problem:
            outcomes.append(problem)
            continue
        outcomes.append(order)
        confirmed.append((order, Status.CREATED))
    await write_orders(session, confirmed, now)
    return outcomes


async def cancel_orders(session: AsyncSession, requests: Sequence[Cancellation]) -> list[Order | Problem]:
    """Release reservations, return sold stock; an order that is canceled already stays as it is."""
    orders, now = await lock_orders(session, [request.order_id for request in requests])
    outcomes: list[Order | Problem] = []
    canceled: list[tuple[Order, Status | None]] = []
    for request in requests:
        try:
            order = _existing(orders, request.order_id)
            status = Status(order.status)
            if status != Status.CANCELED:
                order.cancel(now, request.reason, request.window)
                canceled.append((order, status))
        except Problem as problem:
            outcomes.append(problem)
            continue
        outcomes.append(order)
    await write_orders(session, canceled, now)
    return outcomes


async def expire_orders(session: AsyncSession, *, product_ids: Collection[int] | None = None) -> int:
    """Cancel up to EXPIRE_BATCH orders whose reservation ran out; return how many.

    With `product_ids`, those that hold these products, waiting for the locks of others. Without, any
    that nobody else is working on.
    """
    ids = select(Order.id).where(IS_EXPIRED).order_by(Order.expires_at).limit(EXPIRE_BATCH)
    ids = ids.with_for_update(skip_locked=True) if product_ids is None else ids.where(_holds(product_ids))
    found = (await session.scalars(ids)).all()
    if not found:
        return 0
    orders, now = await lock_orders(session, found)
    expired = [order for order in orders.values() if order.is_expired(now)]
    for order in expired:
        order.cancel(now, EXPIRED, timedelta())
    with principal.acting(principal.SYSTEM):  # whoever happens to need the stock did not cancel them
        await write_orders(session, [(order, Status.CREATED) for order in expired], now)
    after_commit(session, lambda: count_expired(len(expired)))
    return len(expired)


async def expire_all(database: Database) -> int:
    """Cancel every order whose reservation ran out, in batches; return how many."""
    total = 0
    while count := await database.transact(expire_orders):
        total += count
    return total


async def release_expired(session: AsyncSession, product_ids: Collection[int]) -> None:
    """If expired orders hold these products, begin again without them.

    The caller holds locks on products already, and orders must be locked before products: so this
    rolls back, cancels those orders in a transaction of its own and lets the caller start afresh.

    Raises:
        Lost: there are such orders.

    """
    expired = select(Order.id).where(IS_EXPIRED, _holds(product_ids)).limit(1)
    if await session.scalar(expired) is not None:
        raise Lost("repaired", repair=lambda repairing: expire_orders(repairing, product_ids=product_ids))


# --- decisions ----------------------------------------------------------------------------------


def _unorderable(request: NewOrder, products: dict[int, Product]) -> Problem | None:
    missing = [product_id for product_id in request.quantities if product_id not in products]
    if missing:
        return ProductNotFound(f"There is no product {_listed(missing)}.", product_ids=missing)
    inactive = [product_id for product_id in request.quantities if not products[product_id].is_active]
    if inactive:
        return ProductInactive(f"Not sold any more: product {_listed(inactive)}.", product_ids=inactive)
    currencies = sorted({products[product_id].currency for product_id in request.quantities})
    if len(currencies) > 1:
        return CurrencyMixed(f"An order has one currency, these products have {', '.join(currencies)}.")
    return None


def _already_ordered(request: NewOrder, taken: PurchaseOrders) -> Problem | None:
    if request.purchase_order is None or request.purchase_order not in taken:
        return None
    customer_id, number = request.purchase_order
    order_id = taken[request.purchase_order]
    return PurchaseOrderTaken(
        f"Purchase order {number} of customer {customer_id} was ordered before.", order_id=order_id
    )


def _shortages(request: NewOrder, products: dict[int, Product]) -> list[Shortage]:
    found = (products[product_id].shortage(qty) for product_id, qty in request.quantities.items())
    return [shortage for shortage in found if shortage is not None]


def _new_order(request: NewOrder, products: dict[int, Product], now: datetime) -> Order:
    items = [
        OrderItem(
            line=line,
            product_id=product_id,
            sku=products[product_id].sku,
            name=products[product_id].name,
            qty=qty,
            unit_price_cents=products[product_id].price_cents,
        )
        for line, (product_id, qty) in enumerate(request.quantities.items(), start=1)
    ]
    return Order(
        customer_id=request.customer_id,
        status=Status.CREATED,
        currency=products[items[0].product_id].currency,
        total_cents=sum(item.subtotal_cents for item in items),
        purchase_order_number=request.purchase_order_number,
        correlation_id=correlation.current(),
        version=1,
        created_at=now,
        expires_at=now + request.ttl,
        items=items,
    )


def _existing(orders: dict[int, Order], order_id: int) -> Order:
    if order_id not in orders:
        raise OrderNotFound(f"There is no order {order_id}.")
    return orders[order_id]


def _listed(ids: list[int]) -> str:
    return ", ".join(map(str, ids[:20])) + (" …" if len(ids) > 20 else "")  # noqa: PLR2004 - enough to read


def _holds(product_ids: Collection[int]) -> ColumnElement[bool]:
    return exists().where(OrderItem.order_id == Order.id, OrderItem.product_id.in_(product_ids))
