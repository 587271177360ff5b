"""Writes what comes from the code: tables of endpoints, settings, metrics and values, and the Grafana boards.

`make docs` writes them; a test checks that they are what the code says now.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase
from pydantic import SecretStr
from pydantic_core import PydanticUndefined

import customers.settings
import orchestrator.settings
import orders.settings
from chassis.routes import Routes
from chassis.settings import Settings
from chassis.telemetry import metrics as registry
from customers import handlers as customers_handlers
from dev import alerts, chart_settings, values
from dev.dashboards.boards import BOARDS
from orchestrator import handlers as orchestrator_handlers
from orders import handlers as orders_handlers
from orders import product_handlers

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
TELEMETRY = ROOT / "docs" / "telemetry.md"
OPERATIONS = ROOT / "docs" / "operations.md"
UMBRELLA = ROOT / "charts" / "b2b-orders"
CHARTS = (UMBRELLA, UMBRELLA / "charts" / "service")
DASHBOARDS = UMBRELLA / "dashboards"
SCHEMAS = [chart / "values.schema.json" for chart in CHARTS]

SERVICES: dict[str, tuple[type[Settings], list[Routes]]] = {
    "customers": (customers.settings.Settings, [customers_handlers.routes]),
    "orders": (orders.settings.Settings, [product_handlers.routes, orders_handlers.routes]),
    "orchestrator": (orchestrator.settings.Settings, [orchestrator_handlers.routes]),
}


def endpoints() -> str:
    """The operations of the three services."""
    lines = ["| service | endpoint | what it does |", "|---|---|---|"]
    for service, (settings, groups) in SERVICES.items():
        port = settings.model_fields["port"].default
        lines += [
            f"| {service} :{port} | `{operation.method} {operation.path}` | {operation.summary} |"
            for group in groups
            for operation in group.operations
        ]
    return "\n".join(lines)


def settings() -> str:
    """The environment variables: those of every service first, then those of single ones."""
    common = set(Settings.model_fields)
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    ports = ["port", "admin_port"]
    lines += [_row(name, _defaults(name), Settings.model_fields[name].description) for name in ports]
    lines += [
        _row(name, _shown(field.default), field.description)
        for name, field in Settings.model_fields.items()
        if name not in ports
    ]
    own: dict[str, list[str]] = {}
    for service, (settings_class, _) in SERVICES.items():
        for name in settings_class.model_fields:
            if name not in common:
                own.setdefault(name, []).append(service)
    for name, services in own.items():
        description = SERVICES[services[0]][0].model_fields[name].description
        lines.append(_row(name, _defaults(name), f"{', '.join(services)}: {description}"))
    return "\n".join(lines)


def _defaults(name: str) -> str:
    """The default of a variable; where the services differ, each one's."""
    classes = [
        settings_class for settings_class, _ in SERVICES.values() if name in settings_class.model_fields
    ]
    return " / ".join(dict.fromkeys(_shown(found.model_fields[name].default) for found in classes))


def _row(name: str, default: str, meaning: str | None) -> str:
    return f"| `{name.upper()}` | {default} | {meaning} |"


def _shown(default: object) -> str:
    if default is None or default is PydanticUndefined or default == []:
        return ""
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if isinstance(default, float):
        default = f"{default:g}" if default < 1_000_000 else default  # noqa: PLR2004 - no exponents
    return f"`{str(default).lower() if isinstance(default, bool) else default}`" if default != "" else ""


def metrics() -> str:
    """Every metric: its type, labels and meaning; the name ends with the unit."""
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for metric in vars(registry).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            name = f"{family.name}{_SUFFIXES.get(family.type, '')}"
            labels = " ".join(f"`{label}`" for label in metric._labelnames)  # noqa: SLF001 - nothing public tells
            lines.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join(lines)


_SUFFIXES = {"counter": "_total", "info": "_info"}
DOCUMENTS: dict[Path, dict[str, Callable[[], str]]] = {
    README: {"endpoints": endpoints, "settings": settings},
    TELEMETRY: {"metrics": metrics},
    OPERATIONS: {"alerts": alerts.table},
    **{chart / "README.md": {"values": partial(values.table, chart / "values.yaml")} for chart in CHARTS},
}
"""The tables of each document, by the name of the place that they stand in."""


def written(document: Path) -> str:
    """The text of the document with its marked tables replaced."""
    text = document.read_text()
    for name, table in DOCUMENTS[document].items():
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        if not begin or not end:
            raise SystemExit(f"{document.name} needs one place <!-- {name} --> … <!-- /{name} -->")
        text = f"{before}{begin}{table()}\n{end}{after}"
    return text


def generated() -> dict[Path, str]:
    """Every file that comes from the code, in part or whole, and what it should be."""
    boards = {DASHBOARDS / f"{board.uid}.json": _json(board.render()) for board in BOARDS}
    classes = [settings_class for settings_class, _ in SERVICES.values()]
    schemas = {file: chart_settings.written(file, classes) for file in SCHEMAS}
    return {document: written(document) for document in DOCUMENTS} | boards | schemas


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the files, or with --check only compare."""
    for file, text in generated().items():
        if sys.argv[1:] != ["--check"]:
            file.write_text(text)
        elif file.read_text() != text:
            raise SystemExit(f"{file.name} is behind the code: run make docs")


if __name__ == "__main__":
    main()
