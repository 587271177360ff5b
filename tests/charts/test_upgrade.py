"""From one set of values to another: what may not change does not; pods change for what concerns them."""

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.charts.examples import EXAMPLES, NEEDED, OF_OPERATORS
from tests.charts.rendering import SERVICES, UMBRELLA, Object, Release, merged, render

IMMUTABLE = {
    "Deployment": ("selector",),
    "StatefulSet": ("selector", "serviceName", "volumeClaimTemplates", "podManagementPolicy"),
    "Job": ("template", "selector", "completions", "completionMode", "podFailurePolicy"),
    "Pod": ("containers", "initContainers", "volumes", "serviceAccountName"),
}
"""Fields of the spec that an API server refuses to change."""


def is_replaced(one: Object) -> bool:
    """Whether helm deletes the former one before it makes this one."""
    policy = one["metadata"].get("annotations", {}).get("helm.sh/hook-delete-policy", "")
    return "before-hook-creation" in policy.split(",")


def by_name(release: Release) -> dict[tuple[str, str], Object]:
    return {(one["kind"], one["metadata"]["name"]): one for one in release.objects}


def template(release: Release, service: str) -> Any:
    return release.one("Deployment", f"b2b-{service}")["spec"]["template"]


def rolled(values: dict[str, Any], *, before: Release | None = None) -> set[str]:
    """The services whose pods are replaced by an upgrade to these values."""
    old, new = before or render(NEEDED), render(merged(NEEDED, values), upgrade=True)
    return {service for service in SERVICES if template(old, service) != template(new, service)}


@pytest.mark.parametrize(("old", "new"), list(itertools.permutations(EXAMPLES, 2)))
def test_an_upgrade_between_any_two_sets_of_values_changes_nothing_that_cannot_be_changed(
    old: str, new: str
) -> None:
    before, after = by_name(render(EXAMPLES[old])), by_name(render(EXAMPLES[new], upgrade=True))

    both = before.keys() & after.keys()

    assert len(both) > 10
    for kind, name in both:
        if is_replaced(after[kind, name]):
            continue
        for field in IMMUTABLE.get(kind, ()):
            was, becomes = (found[kind, name]["spec"].get(field) for found in (before, after))
            assert was == becomes, f"{kind} {name}: {field}"


def test_what_runs_once_is_replaced_or_has_a_name_of_its_own() -> None:
    for values in EXAMPLES.values():
        for one in render(values).objects:
            if one["kind"] in ("Job", "Pod"):
                assert is_replaced(one) or "-job-" in one["metadata"]["name"], one["metadata"]["name"]


@pytest.mark.parametrize(
    "values",
    [
        {"orders": {"autoscaling": {"minReplicas": 3, "maxReplicas": 5}}},
        {"orders": {"podDisruptionBudget": {"enabled": False}}},
        {"orders": {"cronJobs": {"expire": {"enabled": False}}}},
        {"orders": {"migrations": {"mode": "none"}}},
        {"global": {"db": {"maxConnections": 500}}},
        {"global": {"networkPolicy": {"enabled": False}}},
        {"global": {"serviceMonitor": {"enabled": True}}},
        {"dashboards": {"enabled": True}, "prometheusRule": {"enabled": True}},
        {"customers": {"enabled": False}, "orders": {"clients": []}},
    ],
)
def test_what_does_not_concern_the_pods_leaves_them_alone(values: dict[str, Any]) -> None:
    old, new = render(NEEDED), render(merged(NEEDED, values))
    there = [service for service in SERVICES if f"b2b-{service}" in new.names("Deployment")]

    assert all(template(old, service) == template(new, service) for service in there)


@pytest.mark.parametrize(
    ("values", "services"),
    [
        ({"global": {"config": {"LOG_LEVEL": "debug"}}}, set(SERVICES)),
        ({"orders": {"config": {"CANCEL_WINDOW": 60}}}, {"orders"}),
        ({"customers": {"db": {"poolSize": 2}}}, {"customers"}),
        ({"global": {"image": {"tag": "0.2.0"}}}, set(SERVICES)),
        ({"orchestrator": {"image": {"tag": "0.2.0"}}}, {"orchestrator"}),
        ({"orders": {"extraEnv": [{"name": "TZ", "value": "UTC"}]}}, {"orders"}),
    ],
)
def test_a_change_of_settings_or_image_rolls_the_pods_that_it_concerns(
    values: dict[str, Any], services: set[str]
) -> None:
    assert rolled(values) == services


def test_a_change_of_settings_changes_nothing_of_a_pod_but_their_checksum() -> None:
    old, new = (
        template(render(values), "orders")
        for values in (NEEDED, merged(NEEDED, {"orders": {"config": {"CANCEL_WINDOW": 60}}}))
    )

    assert old["spec"] == new["spec"]
    assert old["metadata"]["labels"] == new["metadata"]["labels"]
    changed = {
        name
        for name, value in new["metadata"]["annotations"].items()
        if old["metadata"]["annotations"].get(name) != value
    }
    assert changed == {"checksum/config"}


def test_a_new_version_of_the_chart_alone_leaves_the_pods_alone(tmp_path: Path) -> None:
    """Its version is in labels of objects, not of pods; the image is named here, so that it stays."""
    newer = tmp_path / "b2b-orders"
    shutil.copytree(UMBRELLA, newer)
    for file in newer.rglob("Chart.yaml"):
        file.write_text(file.read_text().replace("0.1.0", "0.2.0"))
    pinned = merged(NEEDED, {"global": {"image": {"tag": "0.1.0"}}})
    old, new = render(pinned), render(pinned, chart=newer, upgrade=True)

    for service in SERVICES:
        deployments = [one.one("Deployment", f"b2b-{service}") for one in (old, new)]
        assert template(old, service) == template(new, service)
        assert deployments[0]["metadata"]["labels"] != deployments[1]["metadata"]["labels"]
        assert deployments[0]["spec"]["selector"] == deployments[1]["spec"]["selector"]


def test_selectors_hold_what_never_changes() -> None:
    for values in (NEEDED, OF_OPERATORS):
        for one in render(values).all("Deployment"):
            assert set(one["spec"]["selector"]["matchLabels"]) == {
                "app.kubernetes.io/name",
                "app.kubernetes.io/instance",
                "app.kubernetes.io/component",
            }
