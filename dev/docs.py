"""Writes the tables of README.md that come from the code: endpoints and settings.

`make docs` writes them; a test checks that they are what the code says now.
"""

import sys
from pathlib import Path

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

import customers.settings
import orchestrator.settings
import orders.settings
from chassis.routes import Routes
from chassis.settings import Settings
from customers import handlers as customers_handlers
from orchestrator import handlers as orchestrator_handlers
from orders import handlers as orders_handlers
from orders import product_handlers

README = Path(__file__).parent.parent / "README.md"

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


def written(text: str) -> str:
    """The text with its marked tables replaced."""
    for name, table in (("endpoints", endpoints()), ("settings", settings())):
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        if not begin or not end:
            raise SystemExit(f"README.md needs one place <!-- {name} --> … <!-- /{name} -->")
        text = f"{before}{begin}{table}\n{end}{after}"
    return text


def main() -> None:
    """Write README.md, or with --check only compare."""
    text = README.read_text()
    if sys.argv[1:] == ["--check"]:
        if text != written(text):
            raise SystemExit("README.md is behind the code: run make docs")
        return
    README.write_text(written(text))


if __name__ == "__main__":
    main()
