"""Counting what became of orders, once it is committed."""

from chassis.errors import Problem
from chassis.telemetry.metrics import ORDER_VALUE, ORDERS, STOCK_CONFLICTS
from orders.errors import StockInsufficient
from orders.models import Order


def count_order(outcome: str, order: Order) -> None:
    """An order was `created`, `confirmed` or `canceled`."""
    ORDERS.labels(outcome, "").inc()
    if outcome == "confirmed":
        ORDER_VALUE.labels(order.currency).inc(order.total_cents)


def count_refusal(problem: Problem) -> None:
    """A request was refused by a rule."""
    ORDERS.labels("refused", problem.code).inc()
    if isinstance(problem, StockInsufficient):
        STOCK_CONFLICTS.inc()
