"""The values of the charts: each is in the schema and the other way round, and a typo is told by its name."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator  # type: ignore[import-untyped]  # it ships no types

from tests.charts.examples import EXAMPLES, NEEDED, files_of_values
from tests.charts.rendering import SERVICE, SERVICES, UMBRELLA, merged, refusal

CHARTS = {"umbrella": UMBRELLA, "service": SERVICE}
every_chart = pytest.mark.parametrize("chart", CHARTS.values(), ids=CHARTS)
OF_SUBCHARTS = set(SERVICES)
"""Checked by the schema of charts/service, which helm applies to them."""


@cache
def schema(chart: Path) -> Any:
    return json.loads((chart / "values.schema.json").read_text())


@cache
def defaults(chart: Path) -> Any:
    return yaml.safe_load((chart / "values.yaml").read_text())


def resolved(root: Any, node: Any) -> Any:
    """A node of a schema, behind its reference."""
    while "$ref" in node:
        node = root["definitions"][node["$ref"].removeprefix("#/definitions/")]
    return node


def blocks(root: Any, node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every object of the schema that has names of its own, with its path."""
    node = resolved(root, node)
    if "properties" in node and not (path and path[0] in OF_SUBCHARTS):
        yield path, node
        for name, below in node["properties"].items():
            yield from blocks(root, below, (*path, name))


def at(values: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        values = values.get(name) if isinstance(values, dict) else None
    return values


def paths_of_mappings(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all mappings of the values, the whole included."""
    if isinstance(values, dict) and not (path and path[0] in OF_SUBCHARTS):
        yield path
        for name, below in values.items():
            yield from paths_of_mappings(below, (*path, name))


def messages(chart: Path, values: Any) -> list[str]:
    return [error.message for error in validator(chart).iter_errors(values)]


@cache
def validator(chart: Path) -> Draft7Validator:
    return Draft7Validator(schema(chart))


@every_chart
def test_the_schema_is_one_and_takes_the_defaults(chart: Path) -> None:
    Draft7Validator.check_schema(schema(chart))

    assert messages(chart, defaults(chart)) == []


@every_chart
def test_every_value_is_in_the_schema(chart: Path) -> None:
    known = {path: set(node["properties"]) for path, node in blocks(schema(chart), schema(chart))}

    for path in paths_of_mappings(defaults(chart)):
        if path in known:
            assert set(at(defaults(chart), path)) <= known[path], path


@every_chart
def test_everything_in_the_schema_is_a_value_that_is_described(chart: Path) -> None:
    """Beside what a mapping that is empty by default may have, and the variables of `config`."""
    root = schema(chart)
    for path, node in blocks(root, root):
        default = at(defaults(chart), path)
        if default and "config" not in path:
            assert set(node["properties"]) - set(default) <= {"enabled"}, path


@every_chart
def test_every_block_of_the_schema_is_closed(chart: Path) -> None:
    for path, node in blocks(schema(chart), schema(chart)):
        assert node["additionalProperties"] is False, path


@every_chart
def test_a_typo_is_told_by_its_name_wherever_it_is(chart: Path) -> None:
    root = schema(chart)
    closed = {path for path, node in blocks(root, root) if node.get("additionalProperties") is False}
    paths = [path for path in paths_of_mappings(defaults(chart)) if path in closed]

    assert len(paths) > 10
    for path in paths:
        typo: Any = {"tpyo": 1}
        for name in reversed(path):
            typo = {name: typo}
        found = messages(chart, merged(defaults(chart), typo))
        assert any("'tpyo'" in message for message in found), path


@every_chart
def test_a_value_of_another_type_is_refused(chart: Path) -> None:
    root = schema(chart)
    for path, node in blocks(root, root):
        for name in set(node["properties"]) - (OF_SUBCHARTS if path == () else set()):
            if (value := at(defaults(chart), (*path, name))) is None:
                continue
            wrong: Any = {name: "x" if isinstance(value, list) else ["x"]}
            for above in reversed(path):
                wrong = {above: wrong}
            assert messages(chart, wrong), (*path, name)


def test_files_and_examples_of_values_keep_to_the_schema() -> None:
    for chart, file in files_of_values():
        assert messages(chart, merged(defaults(chart), yaml.safe_load(file.read_text()))) == [], file
    for name, values in EXAMPLES.items():
        assert messages(UMBRELLA, merged(defaults(UMBRELLA), values)) == [], name
        for service in SERVICES:
            own = merged(defaults(UMBRELLA)[service], values.get(service, {}))
            whole = merged(defaults(SERVICE), own, {"global": values["global"]})
            assert messages(SERVICE, whole) == [], name


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"ingres": {"enabled": True}}, "ingres"),
        ({"global": {"db": {"maxConection": 5}}}, "maxConection"),
        ({"orders": {"replcas": 3}}, "replcas"),
        ({"orders": {"autoscaling": {"keda": {"enable": True}}}}, "enable"),
        ({"orchestrator": {"config": {"SAGA_LEESE": 3}}}, "SAGA_LEESE"),
        ({"global": {"config": {"PORT": 80}}}, "PORT"),
        ({"orders": {"migrations": {"mode": "sometimes"}}}, "/migrations/mode"),
    ],
)
def test_helm_tells_a_typo_by_its_name(values: dict[str, Any], told: str) -> None:
    assert told in refusal(merged(NEEDED, values))


def test_without_a_secret_of_the_database_nothing_is_installed() -> None:
    told = refusal({})

    for name in ("global.db.existingSecret", "DATABASE_URL", "SERVICE_TOKEN"):
        assert name in told
