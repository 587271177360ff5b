"""The boards."""

from dev.dashboards import orders, platform, services
from dev.dashboards.grafana import Board, address, choice, datasource

_VARIABLES = (
    datasource(),
    choice("namespace", "label_values(b2b_build_info, namespace)"),
    address("jaeger", "Jaeger", "http://localhost:16686"),
)
_WITH_JOB = (*_VARIABLES, choice("job", "label_values(b2b_build_info, job)"))

BOARDS = (
    Board(
        "b2b-orders",
        "B2B / Orders",
        "Are orders flowing, is anyone waiting, why.",
        orders.rows(),
        _VARIABLES,
    ),
    Board(
        "b2b-services",
        "B2B / Services",
        "Rate, errors and duration of requests; what the processes need.",
        services.rows(),
        _WITH_JOB,
    ),
    Board(
        "b2b-platform",
        "B2B / Database and telemetry",
        "Connections, statements, locks; and whether the telemetry is complete.",
        platform.rows(),
        _WITH_JOB,
    ),
)
