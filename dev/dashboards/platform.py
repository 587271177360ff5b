"""Connections, statements, locks; and whether the telemetry is complete."""

from collections.abc import Sequence

from dev.dashboards.grafana import Panel, Row
from dev.dashboards.promql import ALL, quantile, rate, top


def rows() -> Sequence[Row]:
    """The rows of the board."""
    pool = "db_client_connection_pool_name"
    in_use = f'db_client_connection_count{{{ALL}, db_client_connection_state="used"}}'
    used = f"sum by (job, {pool}) ({in_use})"
    statements, by = "db_client_operation_duration_seconds", "job, db_operation_name, db_collection_name"
    return (
        Row(
            "Is the database the bottleneck?",
            (
                Panel(
                    "Connections in use",
                    "The part of the pool; at 100 % requests wait.",
                    "percentunit",
                    [
                        (
                            f"{used} / sum by (job, {pool}) (db_client_connection_max{{{ALL}}})",
                            f"{{{{job}}}} {{{{{pool}}}}}",
                        )
                    ],
                    width=6,
                    thresholds=((None, "green"), (0.9, "red")),
                ),
                Panel(
                    "Waiting for a connection",
                    "Requests in the queue of the pool now.",
                    "short",
                    [
                        (
                            f"sum by (job, {pool}) (db_client_connection_pending_requests{{{ALL}}})",
                            f"{{{{job}}}} {{{{{pool}}}}}",
                        )
                    ],
                    width=6,
                ),
                Panel(
                    "Time to get a connection",
                    "p99; after DB_POOL_TIMEOUT the answer is 503 db.pool_exhausted.",
                    "s",
                    [(quantile(0.99, "db_client_connection_wait_time_seconds", ALL, "job"), "{{job}}")],
                    width=6,
                ),
                Panel(
                    "Waited in vain",
                    "Requests that got no connection in time.",
                    "ops",
                    [(rate("db_client_connection_timeouts_total", ALL, "job"), "{{job}}")],
                    width=6,
                ),
            ),
        ),
        Row(
            "Statements and locks",
            (
                Panel(
                    "Time of a statement",
                    "p99 of the ten slowest, by operation and table.",
                    "s",
                    [
                        (
                            top(quantile(0.99, statements, ALL, by)),
                            "{{job}} {{db_operation_name}} {{db_collection_name}}",
                        )
                    ],
                ),
                Panel(
                    "Statements",
                    "A second, by operation.",
                    "ops",
                    [
                        (
                            rate("db_client_operation_duration_seconds_count", ALL, "job, db_operation_name"),
                            "{{job}} {{db_operation_name}}",
                        )
                    ],
                ),
                Panel(
                    "Statements that fail",
                    "By the driver's error.",
                    "ops",
                    [
                        (
                            rate(
                                "db_client_operation_duration_seconds_count",
                                f'{ALL}, error_type!=""',
                                "job, error_type",
                            ),
                            "{{job}} {{error_type}}",
                        )
                    ],
                    empty="no failures",
                ),
                Panel(
                    "Waiting for row locks",
                    "Statements that take locks: p99 and median.",
                    "s",
                    [
                        (
                            quantile(0.99, "b2b_lock_wait_seconds", ALL, "job, db_collection_name"),
                            "{{job}} {{db_collection_name}} p99",
                        ),
                        (
                            quantile(0.5, "b2b_lock_wait_seconds", ALL, "job, db_collection_name"),
                            "{{job}} {{db_collection_name}} p50",
                        ),
                    ],
                ),
                Panel(
                    "Transactions begun again",
                    "By what they lost against. Deadlocks should be none: locks are taken in one order.",
                    "ops",
                    [(rate("b2b_transaction_retries_total", ALL, "job, error"), "{{job}} {{error}}")],
                ),
                Panel(
                    "COMMIT",
                    "p99; this is the disk of the database.",
                    "s",
                    [
                        (
                            quantile(
                                0.99,
                                "db_client_operation_duration_seconds",
                                f'{ALL}, db_operation_name="COMMIT"',
                                "job",
                            ),
                            "{{job}}",
                        )
                    ],
                ),
            ),
        ),
        Row(
            "Is what we see complete?",
            (
                Panel(
                    "Spans",
                    "Sent to the collector, failed or dropped on the way.",
                    "ops",
                    [(rate("b2b_spans_total", ALL, "job, result"), "{{job}} {{result}}")],
                ),
                Panel(
                    "Series",
                    "Samples of each scrape: the cardinality that Prometheus pays for.",
                    "short",
                    [(f"scrape_samples_scraped{{{ALL}}}", "{{instance}}")],
                ),
                Panel(
                    "What runs",
                    "The versions of the replicas.",
                    "short",
                    [(f"count by (service, version) (b2b_build_info{{{ALL}}})", "{{service}} {{version}}")],
                    kind="table",
                ),
            ),
        ),
    )
