"""The settings of the services in the schema of the charts: what `config` takes, and what each may be.

Secrets, ports, addresses and the pool have values of their own; what only tests need has none.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from chassis.settings import Settings

ELSEWHERE = {
    "port",
    "admin_port",
    "database_url",
    "db_host",
    "db_port",
    "db_username",
    "db_password",
    "db_name",
    "db_pool_size",
    "service_token",
    "service_token_file",
    "customers_api_base",
    "orders_api_base",
    "data_dir",
    "failpoints",
}
"""Set by other values or by the chart itself, or of no use there."""
_KEPT = ("type", "enum", "minimum", "maximum", "exclusiveMinimum")
_NUMBERS = {"integer": r"^[0-9]+$", "number": r"^[0-9]+(\.[0-9]+)?$"}


def config(services: Iterable[type[Settings]]) -> dict[str, Any]:
    """The JSON Schema of `config`: the variables of all services, and those of OpenTelemetry."""
    variables = {
        name.upper(): _value(declared)
        for settings in services
        for name, declared in settings.model_json_schema()["properties"].items()
        if name not in ELSEWHERE
    }
    variables["AUTH"] = {"enum": ["jwt", "off", "", False]}  # a bare `off` is false in YAML
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": variables,
        "patternProperties": {"^OTEL_[A-Z0-9_]+$": {"type": ["string", "number", "boolean"]}},
    }


def written(schema: Path, services: Iterable[type[Settings]]) -> str:
    """The text of a chart's schema with `config` as the code has it."""
    content = json.loads(schema.read_text())
    content["definitions"]["config"] = config(services)
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _value(declared: dict[str, Any]) -> dict[str, Any]:
    """What a variable may be in values: numbers and truth also as text, as `--set-string` gives them."""
    (kind,) = [one for one in declared.get("anyOf", [declared]) if one.get("type") != "null"]
    found = {key: kind[key] for key in _KEPT if key in kind}
    if "enum" in found:
        return {"enum": found["enum"]}
    if found["type"] == "boolean":
        return {"enum": [True, False, "true", "false"]}
    if found["type"] == "array":
        return {"type": "string"}
    if found["type"] in _NUMBERS:
        found |= {"type": [found["type"], "string"], "pattern": _NUMBERS[found["type"]]}
    return found
