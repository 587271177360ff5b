"""Are orders flowing, is anyone waiting? And why."""

from collections.abc import Sequence

from dev.dashboards.grafana import Panel, Row
from dev.dashboards.promql import HTTP, SHOP, W, quantile, rate, share

UNFINISHED = 'state=~"RUNNING|COMPENSATING"'
MAIN = 'namespace=~"$namespace", http_route="/orchestrator/create-and-confirm-order"'


def burnt(window: str) -> str:
    """How many times faster than allowed the error budgets are used up."""
    return f"slo:error_ratio:rate{window}{{{SHOP}}} / on (slo) group_left () slo:error_budget:ratio"


def rows() -> Sequence[Row]:
    """The rows of the board."""
    jobs = f"sum(rate({HTTP}_count{{{MAIN}}}[{W}]))"
    failed = f'sum(rate({HTTP}_count{{{MAIN}, http_response_status_code=~"5.."}}[{W}]))'
    return (
        Row(
            "Are orders flowing, is anyone waiting?",
            (
                Panel(
                    "Confirmed in the last hour",
                    "Orders that were confirmed; compare with the same hour of other days.",
                    "short",
                    [(f'sum(increase(b2b_orders_total{{{SHOP}, outcome="confirmed"}}[1h]))', "")],
                    kind="stat",
                    width=4,
                    height=4,
                ),
                Panel(
                    "Requests that fail",
                    "Main job: the part answered with a 5xx. The promise is 0.1 %.",
                    "percentunit",
                    [(share(failed, jobs), "")],
                    kind="stat",
                    empty="no requests",
                    width=4,
                    height=4,
                    thresholds=((None, "green"), (0.001, "orange"), (0.01, "red")),
                ),
                Panel(
                    "99 % answered within",
                    "Main job. The promise is one second.",
                    "s",
                    [(quantile(0.99, HTTP, MAIN, "http_route"), "")],
                    kind="stat",
                    empty="no requests",
                    width=4,
                    height=4,
                    thresholds=((None, "green"), (1, "orange"), (5, "red")),
                ),
                Panel(
                    "Sagas under way",
                    "Without an answer yet, RUNNING or COMPENSATING, as the last sweep found them.",
                    "short",
                    [
                        (
                            f"sum(max by (namespace, state) (b2b_sagas{{{SHOP}, {UNFINISHED}}}))",
                            "",
                        )
                    ],
                    kind="stat",
                    width=4,
                    height=4,
                ),
                Panel(
                    "Longest wait",
                    "Age of the oldest saga without an answer. Above five minutes somebody is woken.",
                    "s",
                    [(f"max(b2b_saga_oldest_unfinished_seconds{{{SHOP}}})", "")],
                    kind="stat",
                    width=4,
                    height=4,
                    thresholds=((None, "green"), (30, "orange"), (300, "red")),
                ),
                Panel(
                    "Need an operator",
                    "Sagas that cannot end by themselves; python -m orchestrator sagas lists them.",
                    "short",
                    [(f'max(b2b_sagas{{{SHOP}, state="NEEDS_ATTENTION"}})', "")],
                    kind="stat",
                    width=4,
                    height=4,
                    thresholds=((None, "green"), (1, "red")),
                ),
                Panel(
                    "Orders",
                    "What became of orders, a second.",
                    "ops",
                    [(rate("b2b_orders_total", f'{SHOP}, outcome!="refused"', "outcome"), "{{outcome}}")],
                ),
                Panel(
                    "Refusals",
                    "Requests that the rules of orders refused, by reason.",
                    "ops",
                    [(rate("b2b_orders_total", f'{SHOP}, outcome="refused"', "reason"), "{{reason}}")],
                    stacked=True,
                    empty="no refusals",
                ),
                Panel(
                    "Time to the answer",
                    "Main job. Dots are single requests; each leads to its trace.",
                    "s",
                    [(quantile(q, HTTP, MAIN, "http_route"), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)],
                    exemplars=True,
                    thresholds=((None, "green"), (1, "red")),
                ),
            ),
        ),
        Row(
            "Why",
            (
                Panel(
                    "Steps that found their peer unavailable",
                    "validate_customer is customers, the others are orders.",
                    "ops",
                    [
                        (
                            rate(
                                "b2b_saga_step_duration_seconds_count",
                                f'{SHOP}, outcome="unavailable"',
                                "step",
                            ),
                            "{{step}}",
                        )
                    ],
                ),
                Panel(
                    "Time of a step",
                    "All attempts of one step together, p95.",
                    "s",
                    [(quantile(0.95, "b2b_saga_step_duration_seconds", SHOP, "step"), "{{step}}")],
                ),
                Panel(
                    "How sagas end",
                    "COMPENSATED ones had made an order that could not be confirmed.",
                    "ops",
                    [(rate("b2b_sagas_ended_total", SHOP, "state"), "{{state}}")],
                ),
                Panel(
                    "Idempotency keys",
                    "Replays are clients that asked again; reused is a bug of a client.",
                    "ops",
                    [(rate("b2b_idempotency_total", SHOP, "service, result"), "{{service}} {{result}}")],
                ),
                Panel(
                    "Refused for lack of stock",
                    "Beside it, the orders that were made.",
                    "ops",
                    [
                        (rate("b2b_stock_conflicts_total", SHOP, "namespace"), "refused"),
                        (rate("b2b_orders_total", f'{SHOP}, outcome="created"', "namespace"), "created"),
                    ],
                ),
                Panel(
                    "Value confirmed",
                    "In minor units (cents) a second, by currency.",
                    "short",
                    [(rate("b2b_order_value_cents_total", SHOP, "currency"), "{{currency}}")],
                ),
            ),
        ),
        Row(
            "What was promised",
            (
                Panel(
                    "Error budget burnt",
                    "How many times faster than a month's budget allows, over an hour; 14.4 wakes somebody.",
                    "short",
                    [
                        (
                            burnt("1h"),
                            "{{slo}} {{job}}",
                        )
                    ],
                    width=12,
                    empty="no requests",
                    thresholds=((None, "green"), (1, "orange"), (14.4, "red")),
                ),
                Panel(
                    "Error budget burnt, six hours",
                    "The same over six hours: 6 wakes somebody.",
                    "short",
                    [
                        (
                            burnt("6h"),
                            "{{slo}} {{job}}",
                        )
                    ],
                    width=12,
                    empty="no requests",
                    thresholds=((None, "green"), (1, "orange"), (6, "red")),
                ),
            ),
        ),
    )
