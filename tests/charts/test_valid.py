"""What helm and an API server say of every object: with every file of values, and with every switch on."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.charts.examples import EXAMPLES, NEEDED, files_of_values
from tests.charts.rendering import SERVICE, SERVICES, UMBRELLA, Release, helm, merged, render
from tests.charts.schemas import CUSTOM, VERSIONS, errors

FILES = [pytest.param(chart, file, id=f"{file.parent.name}-{file.stem}") for chart, file in files_of_values()]


def rendered() -> Iterator[Release]:
    """Everything there is to render."""
    for values in EXAMPLES.values():
        yield render(values)
    for chart, file in files_of_values():
        yield render(NEEDED, chart=chart, files=[file])


def distinct() -> dict[str, dict[str, Any]]:
    """All objects of all renderings, each once."""
    objects = itertools.chain.from_iterable(release.objects for release in rendered())
    return {json.dumps(one, sort_keys=True): one for one in objects}


@pytest.mark.parametrize(("chart", "file"), FILES)
def test_helm_finds_nothing_to_say_about_a_file_of_values(chart: Any, file: Any, tmp_path: Any) -> None:
    needed = tmp_path / "needed.json"
    needed.write_text(json.dumps(NEEDED))

    done = helm("lint", "--strict", str(chart), "--values", str(file), "--values", str(needed))

    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize("name", EXAMPLES)
def test_helm_finds_nothing_to_say_about_the_umbrella(name: str, tmp_path: Any) -> None:
    values = tmp_path / "values.json"
    values.write_text(json.dumps(EXAMPLES[name]))

    done = helm("lint", "--strict", str(UMBRELLA), "--values", str(values))

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("version", VERSIONS)
def test_an_api_server_takes_every_object(version: str) -> None:
    assert [wrong for one in distinct().values() for wrong in errors(one, version)] == []


def test_every_kind_of_object_is_among_them() -> None:
    kinds = {one["kind"] for one in distinct().values()}

    assert kinds == {
        *(kind for _, kind in CUSTOM),
        "ConfigMap",
        "CronJob",
        "Deployment",
        "HorizontalPodAutoscaler",
        "Ingress",
        "Job",
        "NetworkPolicy",
        "Pod",
        "PodDisruptionBudget",
        "Service",
        "ServiceAccount",
    }


def test_the_examples_turn_every_switch_on_and_off() -> None:
    """A template behind a switch that no example turns on would not be looked at."""
    umbrella, service = (yaml.safe_load((chart / "values.yaml").read_text()) for chart in (UMBRELLA, SERVICE))
    seen: dict[str, set[bool]] = {path: set() for path, _ in switches({**service, **umbrella})}
    for values in EXAMPLES.values():
        whole = merged(umbrella, values)
        for name in SERVICES:
            for path, value in switches(merged(service, whole.pop(name))):
                seen.setdefault(path, set()).add(value)
        for path, value in switches(whole):
            seen[path].add(value)

    one_way = {path for path in seen if len(seen[path]) == 1 and "cronJobs" not in path}
    # Without a service, and without network policies, there are objects less and none other.
    assert one_way - {"enabled", "global.networkPolicy.enabled"} == set()


def switches(values: Any, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """The paths of all values that are true or false."""
    for name, value in values.items():
        if isinstance(value, bool):
            yield f"{prefix}{name}", value
        elif isinstance(value, dict):
            yield from switches(value, f"{prefix}{name}.")


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"replicaz": 2}, "replicaz"),
        ({"replicas": "two"}, "'two' is not of type"),
        (
            {"template": {"spec": {"containers": [{"name": "a", "imagePullPolicyy": "Always"}]}}},
            "imagePullPolicyy",
        ),
    ],
)
def test_an_object_with_a_field_that_is_not_there_is_noticed(broken: dict[str, Any], told: str) -> None:
    deployment = merged(render(NEEDED).one("Deployment", "b2b-orders"), {"spec": broken})

    for version in VERSIONS:
        assert told in "\n".join(errors(deployment, version))


@pytest.mark.parametrize("kind", [kind for _, kind in CUSTOM])
def test_a_custom_resource_with_a_field_that_is_not_there_is_noticed(kind: str) -> None:
    (found, *_) = (one for one in distinct().values() if one["kind"] == kind)

    assert "specc" in "\n".join(errors({**found, "specc": {}}, VERSIONS[0]))
    assert "typo" in "\n".join(errors(merged(found, {"spec": {"typo": 1}}), VERSIONS[0]))
