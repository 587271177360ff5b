"""Who reaches whom on a development cluster: the policies of k8s/ and those of the release, together."""

from itertools import product
from typing import Any

import pytest

from tests.charts.policies import Endpoint, Policies
from tests.charts.rendering import SERVICES
from tests.k8s.manifests import Object, built, pod_templates, release
from tests.k8s.test_manifests import DEMO, SMOKE_TEST

ADMIN = {"customers": 9001, "orders": 9002, "orchestrator": 9010}
HTTP = {"customers": 3001, "orders": 3002, "orchestrator": 3010}
WORLD = Endpoint("world", address="203.0.113.7")


def endpoint(name: str, namespace: str, template: Object) -> Endpoint:
    ports = {
        port["name"]: port["containerPort"]
        for one in template["spec"]["containers"]
        for port in one.get("ports", ())
    }
    return Endpoint(name, namespace, template["metadata"]["labels"], ports=ports)


@pytest.fixture(scope="module")
def policies() -> Policies:
    ours = [{**one, "metadata": {"namespace": "b2b-orders"}} for one in release().all("NetworkPolicy")]
    return Policies([*ours, *(one for one in built() if one["kind"] == "NetworkPolicy")])


@pytest.fixture(scope="module")
def pods() -> dict[str, Endpoint]:
    """All pods by their names, without the kind of what they are in."""
    templates = {
        "b2b-orders": [
            *release().pods(),
            *pod_templates(DEMO),
            ("Job smoke-test", SMOKE_TEST["spec"]["template"]),
        ],
        "b2b-infra": [*pod_templates()],
    }
    found = [
        endpoint(name.partition(" ")[2], namespace, template)
        for namespace, those in templates.items()
        for name, template in those
    ]
    return {one.name: one for one in found}


ALLOWED = {
    *(("mysql", 3306, f"b2b-{service}") for service in SERVICES),
    *(("mysql", 3306, f"b2b-{service}-migrate") for service in SERVICES),
    *(("collector", 4318, f"b2b-{service}") for service in SERVICES),
    *((f"b2b-{service}", ADMIN[service], "prometheus") for service in SERVICES),
    *((f"b2b-{service}", HTTP[service], "b2b-smoke-test") for service in SERVICES),
    *((f"b2b-{service}", HTTP[service], "smoke-test") for service in SERVICES),
    *((f"b2b-{service}", HTTP[service], "sample-data") for service in ("customers", "orders")),
    ("jaeger", 4317, "collector"),
    ("jaeger", 16686, "grafana"),
    ("prometheus", 9090, "grafana"),
}


def test_what_has_to_talk_may(policies: Policies, pods: dict[str, Endpoint]) -> None:
    refused = [
        (target, port, source)
        for target, port, source in ALLOWED
        if not policies.allow(pods[source], pods[target], port)
    ]

    assert refused == []


@pytest.mark.parametrize("port", [443, 6443, 8443])
def test_prometheus_alone_reaches_the_api_server_wherever_it_listens(
    port: int, policies: Policies, pods: dict[str, Endpoint]
) -> None:
    asking = {name for name, pod in pods.items() if policies.allow(pod, WORLD, port)}

    assert asking & {name for name, pod in pods.items() if pod.namespace == "b2b-infra"} == {"prometheus"}


def test_nothing_else_reaches_what_is_not_ours(policies: Policies, pods: dict[str, Endpoint]) -> None:
    sources: dict[str, Any] = {**pods, "world": WORLD}
    infra = [name for name, pod in pods.items() if pod.namespace == "b2b-infra"]
    found = {
        (target, port, source)
        for target, source in product(infra, sources)
        for port in pods[target].ports.values()
        if source != target and policies.allow(sources[source], pods[target], port)
    }

    of_ours = {
        one for one in found if one[0] in ("mysql", "collector") and sources[one[2]].namespace == "b2b-orders"
    }
    assert found - of_ours == {one for one in ALLOWED if one[0] in ("jaeger", "prometheus", "grafana")}
