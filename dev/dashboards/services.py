"""Rate, errors and duration of requests; what the processes need."""

from collections.abc import Sequence

from dev.dashboards.grafana import Panel, Row
from dev.dashboards.promql import ALL, HTTP, W, quantile, rate, share, top


def rows() -> Sequence[Row]:
    """The rows of the board."""
    errors = rate(f"{HTTP}_count", f'{ALL}, http_response_status_code=~"5.."', "job")
    total = rate(f"{HTTP}_count", ALL, "job")
    return (
        Row(
            "Are requests served?",
            (
                Panel("Requests", "A second, by service.", "reqps", [(total, "{{job}}")], width=6),
                Panel(
                    "Failures",
                    "The part of requests answered with a 5xx.",
                    "percentunit",
                    [(share(errors, total), "{{job}}")],
                    width=6,
                    thresholds=((None, "green"), (0.001, "red")),
                ),
                Panel(
                    "Time to the answer",
                    "p99 by service. Dots are single requests; each leads to its trace.",
                    "s",
                    [(quantile(0.99, HTTP, ALL, "job"), "{{job}}")],
                    width=6,
                    exemplars=True,
                ),
                Panel(
                    "Being served",
                    "Requests in flight; autoscaling can follow this.",
                    "short",
                    [(f"sum by (job) (http_server_active_requests{{{ALL}}})", "{{job}}")],
                    width=6,
                ),
            ),
        ),
        Row(
            "Which route, which code",
            (
                Panel(
                    "Routes",
                    "Requests a second of the ten busiest.",
                    "reqps",
                    [
                        (
                            f"topk(10, {rate(f'{HTTP}_count', ALL, 'job, http_request_method, http_route')})",
                            "{{job}} {{http_request_method}} {{http_route}}",
                        )
                    ],
                ),
                Panel(
                    "Slow routes",
                    "p99 of the ten slowest.",
                    "s",
                    [(top(quantile(0.99, HTTP, ALL, "job, http_route")), "{{job}} {{http_route}}")],
                ),
                Panel(
                    "Problems",
                    "Answers from 400 on by their code.",
                    "reqps",
                    [
                        (
                            rate(
                                f"{HTTP}_count",
                                f'{ALL}, error_type!=""',
                                "job, http_response_status_code, error_type",
                            ),
                            "{{job}} {{http_response_status_code}} {{error_type}}",
                        )
                    ],
                    stacked=True,
                    empty="no problems",
                ),
            ),
        ),
        Row(
            "Calls to peers",
            (
                Panel(
                    "Attempts that failed",
                    "By the peer's address and the reason; they are made again.",
                    "reqps",
                    [
                        (
                            rate(
                                "http_client_request_duration_seconds_count",
                                f'{ALL}, error_type!=""',
                                "job, server_address, error_type",
                            ),
                            "{{job}} → {{server_address}} {{error_type}}",
                        )
                    ],
                    width=12,
                    empty="no failures",
                ),
                Panel(
                    "Time of an attempt",
                    "p99 as the caller sees it.",
                    "s",
                    [
                        (
                            quantile(
                                0.99, "http_client_request_duration_seconds", ALL, "job, server_address"
                            ),
                            "{{job}} → {{server_address}}",
                        )
                    ],
                    width=12,
                ),
            ),
        ),
        Row(
            "What they need",
            (
                Panel(
                    "Replicas",
                    "Up, ready, and draining.",
                    "short",
                    [
                        (f"sum by (job) (up{{{ALL}}})", "{{job}} up"),
                        (f"sum by (job) (b2b_ready{{{ALL}}})", "{{job}} ready"),
                        (f"sum by (job) (b2b_draining{{{ALL}}})", "{{job}} draining"),
                    ],
                    width=6,
                ),
                Panel(
                    "CPU",
                    "Cores of each replica; a process uses one.",
                    "short",
                    [(f"rate(process_cpu_seconds_total{{{ALL}}}[{W}])", "{{instance}}")],
                    width=6,
                    thresholds=((None, "green"), (0.9, "red")),
                ),
                Panel(
                    "Memory",
                    "Resident, of each replica.",
                    "bytes",
                    [(f"process_resident_memory_bytes{{{ALL}}}", "{{instance}}")],
                    width=6,
                ),
                Panel(
                    "Event loop",
                    "How late timers are, p99: everything in the process waits as long.",
                    "s",
                    [(quantile(0.99, "b2b_event_loop_lag_seconds", ALL, "instance"), "{{instance}}")],
                    width=6,
                    thresholds=((None, "green"), (0.25, "red")),
                ),
            ),
        ),
    )
