"""The orders API: from the request to a command or query, and back."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from aiohttp import web
from opentelemetry import trace
from sqlalchemy.ext.asyncio import AsyncSession

from chassis import http
from chassis.database import DATABASE, after_commit
from chassis.errors import PeerBroken, Problem
from chassis.http import Answer, Id, One
from chassis.idempotency import Outcome, once
from chassis.pagination import Page
from chassis.routes import Routes
from orders import commands, queries
from orders.commands import Cancellation, NewOrder
from orders.customers_client import CUSTOMERS
from orders.errors import (
    CancelWindowClosed,
    CurrencyMixed,
    CustomerInactive,
    CustomerNotFound,
    CustomersUnavailable,
    OrderExpired,
    OrderNotConfirmable,
    OrderNotFound,
    ProductInactive,
    ProductNotFound,
    PurchaseOrderTaken,
    StockInsufficient,
)
from orders.failpoints import COMMITTED
from orders.metrics import count_order, count_refusal
from orders.models import Order
from orders.schemas import (
    CancelOrder,
    ConfirmOrder,
    CreateOrder,
    FindMovements,
    FindOrders,
    MovementView,
    OrderDetail,
    OrderView,
)
from orders.settings import SETTINGS

T = TypeVar("T")
Command = Callable[[AsyncSession, Sequence[T]], Awaitable[list[Order | Problem]]]

routes = Routes("orders")
PREFIX = "/admin/orders"


@routes.post(
    f"{PREFIX}/create-order",
    scope="orders:write",
    peers=True,
    answers={201: One[OrderView]},
    refuses=(
        CustomerNotFound,
        CustomerInactive,
        CustomersUnavailable,
        PeerBroken,
        ProductNotFound,
        ProductInactive,
        CurrencyMixed,
        PurchaseOrderTaken,
        StockInsufficient,
    ),
    key="optional",
    creates="order_id",
)
async def create_order(request: web.Request, body: CreateOrder) -> Answer:
    """Create an order and reserve its stock.

    The reservation holds until `expires_at`. The same product in several lines is merged.
    """
    ttl = timedelta(seconds=request.app[SETTINGS].reservation_ttl)
    new = NewOrder(body.customer_id, body.quantities(), body.purchase_order_number, ttl)
    work = _step(commands.create_orders, new, "created")
    asked = request.app[CUSTOMERS]
    answer = await once(request, work, before=lambda: asked.require_active(body.customer_id))
    await COMMITTED["created"]()
    return answer


@routes.post(
    f"{PREFIX}/{{order_id}}/confirm",
    scope="orders:write",
    peers=True,
    answers={200: One[OrderView]},
    refuses=(OrderNotFound, OrderNotConfirmable, OrderExpired),
    key="required",
)
async def confirm_order(request: web.Request, order_id: Id, body: ConfirmOrder) -> Answer:  # noqa: ARG001 - its key is taken already
    """Turn an order's reservation into a sale."""
    answer = await once(request, _step(commands.confirm_orders, order_id, "confirmed"))
    await COMMITTED["confirmed"]()
    return answer


@routes.post(
    f"{PREFIX}/{{order_id}}/cancel",
    scope="orders:write",
    peers=True,
    answers={200: One[OrderView]},
    refuses=(OrderNotFound, CancelWindowClosed),
    key="optional",
)
async def cancel_order(request: web.Request, order_id: Id, body: CancelOrder) -> Answer:
    """Cancel an order: its reservation is released, or its sold stock returned.

    A confirmed order can be canceled for ten minutes unless configured otherwise. Canceling again
    changes nothing.
    """
    window = timedelta(seconds=request.app[SETTINGS].cancel_window)
    cancellation = Cancellation(order_id, body.reason, window)
    answer = await once(request, _step(commands.cancel_orders, cancellation, "canceled"))
    await COMMITTED["canceled"]()
    return answer


@routes.get(f"{PREFIX}/find-all", scope="orders:read", peers=True, answers={200: Page[OrderView]})
async def find_orders(request: web.Request, query: FindOrders) -> Answer:
    """List orders, newest first."""
    async with request.app[DATABASE].read() as session:
        rows = await queries.find_orders(session, query)
    return Answer.of(
        Page.of(rows, query, OrderView.model_validate, lambda order: (order.created_at, order.id))
    )


@routes.get(
    f"{PREFIX}/find-one/{{order_id}}",
    scope="orders:read",
    peers=True,
    answers={200: One[OrderDetail]},
    refuses=(OrderNotFound,),
)
async def get_order(request: web.Request, order_id: Id) -> Answer:
    """Show one order with its history."""
    async with request.app[DATABASE].read() as session:
        order = await queries.get_order(session, order_id)
    view = One[OrderDetail](data=OrderDetail.model_validate(order))
    return http.not_modified(request, Answer.of(view, version=order.version))


@routes.get(
    f"{PREFIX}/{{order_id}}/movements",
    scope="orders:read",
    peers=True,
    answers={200: Page[MovementView]},
    refuses=(OrderNotFound,),
)
async def find_movements(request: web.Request, order_id: Id, query: FindMovements) -> Answer:
    """List the lines of the ledger that an order made, newest first."""
    async with request.app[DATABASE].read() as session:
        rows = await queries.find_movements(session, order_id, query)
    return Answer.of(Page.of(rows, query, MovementView.model_validate, lambda movement: (movement.id,)))


def _step(command: Command[T], item: T, outcome: str) -> Callable[[AsyncSession], Awaitable[Outcome]]:
    """The work of one request: a command on a list of one."""

    async def work(session: AsyncSession) -> Outcome:
        (decided,) = await command(session, [item])
        if isinstance(decided, Problem):
            count_refusal(decided)
            return decided
        trace.get_current_span().set_attribute("order_id", decided.id)
        after_commit(session, lambda: count_order(outcome, decided))
        view = One[OrderView](data=OrderView.model_validate(decided))
        if outcome == "created":
            return Answer.of(view, 201, location=f"{PREFIX}/find-one/{decided.id}", version=decided.version)
        return Answer.of(view, version=decided.version)

    return work
