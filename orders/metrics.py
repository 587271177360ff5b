"""Counting what became of orders, once it is committed."""

from chassis.errors import Problem
from chassis.telemetry.metrics import ORDER_VALUE, ORDERS, STOCK_CONFLICTS
from orders import errors
from orders.models import Order

REFUSALS: tuple[type[Problem], ...] = (
    errors.CancelWindowClosed,
    errors.CurrencyMixed,
    errors.OrderExpired,
    errors.OrderNotConfirmable,
    errors.OrderNotFound,
    errors.ProductInactive,
    errors.ProductNotFound,
    errors.PurchaseOrderTaken,
    errors.StockInsufficient,
)
"""What the rules of orders refuse for."""

# From zero, or a rate never sees the first one of a kind.
for _outcome in ("created", "confirmed", "canceled", "expired"):
    ORDERS.labels(_outcome, "")
for _refusal in REFUSALS:
    ORDERS.labels("refused", _refusal.code)


def count_order(outcome: str, order: Order) -> None:
    """An order was `created`, `confirmed` or `canceled`."""
    ORDERS.labels(outcome, "").inc()
    if outcome == "confirmed":
        ORDER_VALUE.labels(order.currency).inc(order.total_cents)


def count_expired(orders: int) -> None:
    """So many reservations ran out and were released."""
    ORDERS.labels("expired", "").inc(orders)


def count_refusal(problem: Problem) -> None:
    """A request was refused by a rule."""
    ORDERS.labels("refused", problem.code).inc()
    if isinstance(problem, errors.StockInsufficient):
        STOCK_CONFLICTS.inc()
