"""How many pods there are: autoscalers, budgets for disruptions, and connections of the database."""

import re
from typing import Any

import pytest
from prometheus_client.metrics import MetricWrapperBase

from chassis.telemetry import metrics as registry
from tests.charts.examples import EXAMPLES, NEEDED, OTHERWISE
from tests.charts.policies import selects
from tests.charts.rendering import SERVICE, SERVICES, Object, merged, refusal, render

KEDA: dict[str, Any] = {"autoscaling": {"hpa": {"enabled": False}, "keda": {"enabled": True}}}
FIXED: dict[str, Any] = {"autoscaling": {"hpa": {"enabled": False}}}
every_service = pytest.mark.parametrize("service", SERVICES)


def with_all(values: dict[str, Any]) -> dict[str, Any]:
    """The same for the three services."""
    return merged(NEEDED, dict.fromkeys(SERVICES, values))


def seconds(rules: list[Object]) -> float:
    """How long the fastest of these policies takes to double ten pods, or to halve them."""
    pods = [rule["value"] / (10 if rule["type"] == "Percent" else 1) for rule in rules]
    return float(min(10 / step * rule["periodSeconds"] for step, rule in zip(pods, rules, strict=True)))


@every_service
def test_an_autoscaler_on_cpu_owns_the_number_of_pods(service: str) -> None:
    release = render(NEEDED)
    scaler = release.one("HorizontalPodAutoscaler", f"b2b-{service}")["spec"]

    assert scaler["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": f"b2b-{service}",
    }
    assert "replicas" not in release.one("Deployment", f"b2b-{service}")["spec"]
    assert [metric["resource"]["name"] for metric in scaler["metrics"]] == ["cpu"]
    assert 2 <= scaler["minReplicas"] < scaler["maxReplicas"]


@every_service
def test_keda_scales_on_requests_in_flight_per_pod_instead(service: str) -> None:
    release = render(with_all(KEDA))
    scaler = release.one("ScaledObject", f"b2b-{service}")["spec"]
    (trigger,) = scaler["triggers"]

    assert release.all("HorizontalPodAutoscaler") == []
    assert "replicas" not in release.one("Deployment", f"b2b-{service}")["spec"]
    assert scaler["scaleTargetRef"] == {"name": f"b2b-{service}"}
    assert trigger["metricType"] == "AverageValue"
    assert float(trigger["metadata"]["threshold"]) > 0
    assert 2 <= scaler["minReplicaCount"] < scaler["maxReplicaCount"]
    # Blind, it keeps what is there.
    assert scaler["fallback"]["behavior"] == "currentReplicasIfHigher"
    assert scaler["fallback"]["replicas"] == scaler["minReplicaCount"]


@every_service
def test_keda_asks_for_a_metric_that_exists_with_the_labels_that_prometheus_gives_it(service: str) -> None:
    release = render(merged(with_all(KEDA), {"global": {"serviceMonitor": {"enabled": True}}}))
    query = release.one("ScaledObject", f"b2b-{service}")["spec"]["triggers"][0]["metadata"]["query"]
    declared = {
        family.name
        for metric in vars(registry).values()
        if isinstance(metric, MetricWrapperBase)
        for family in metric.describe()
    }
    label = release.one("ServiceMonitor", f"b2b-{service}")["spec"]["jobLabel"]

    assert set(re.findall(r"\b(?:http|b2b|db)_\w+", query)) == {"http_server_active_requests"} <= declared
    assert f'job="{release.one("Service", f"b2b-{service}")["metadata"]["labels"][label]}"' in query
    assert 'namespace="b2b-orders"' in query


@pytest.mark.parametrize("by", ["hpa", "keda"])
def test_replicas_follow_fast_upwards_and_slowly_downwards(by: str) -> None:
    release = render(NEEDED if by == "hpa" else with_all(KEDA))
    for service in SERVICES:
        if by == "hpa":
            behavior = release.one("HorizontalPodAutoscaler", f"b2b-{service}")["spec"]["behavior"]
        else:
            advanced = release.one("ScaledObject", f"b2b-{service}")["spec"]["advanced"]
            behavior = advanced["horizontalPodAutoscalerConfig"]["behavior"]

        up, down = behavior["scaleUp"], behavior["scaleDown"]
        assert up["stabilizationWindowSeconds"] == 0
        assert down["stabilizationWindowSeconds"] >= 300
        assert seconds(up["policies"]) <= 30
        assert seconds(down["policies"]) >= 300


def test_two_autoscalers_for_one_deployment_are_refused() -> None:
    told = refusal(merged(NEEDED, {"orders": {"autoscaling": {"keda": {"enabled": True}}}}))

    assert "autoscaling.hpa.enabled and autoscaling.keda.enabled" in told
    assert "orders cannot be installed" in told


def test_no_example_has_two_autoscalers_for_one_deployment() -> None:
    for values in EXAMPLES.values():
        release = render(values)
        assert not release.names("HorizontalPodAutoscaler") & release.names("ScaledObject")


@every_service
def test_without_an_autoscaler_the_number_of_pods_is_what_it_is_told(service: str) -> None:
    release = render(with_all({**FIXED, "replicas": 3}))

    assert release.one("Deployment", f"b2b-{service}")["spec"]["replicas"] == 3
    assert release.all("HorizontalPodAutoscaler") == release.all("ScaledObject") == []


@every_service
def test_a_drain_of_nodes_takes_one_pod_at_a_time_and_never_waits_for_a_broken_one(service: str) -> None:
    release = render(NEEDED)
    budget = release.one("PodDisruptionBudget", f"b2b-{service}")["spec"]

    covered = [
        where for where, pod in release.pods() if selects(budget["selector"], pod["metadata"]["labels"])
    ]

    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert covered == [f"Deployment b2b-{service}"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"autoscaling": {"minReplicas": 1}}, "autoscaling.minReplicas is 1 and podDisruptionBudget.enabled"),
        ({**KEDA, "autoscaling": {**KEDA["autoscaling"], "minReplicas": 1}}, "autoscaling.minReplicas is 1"),
        ({**FIXED, "replicas": 1}, "replicas is 1 and podDisruptionBudget.enabled"),
        ({"autoscaling": {"minReplicas": 5, "maxReplicas": 4}}, "autoscaling.minReplicas 5 is more than"),
    ],
)
def test_numbers_of_pods_that_cannot_be_meant_are_refused(values: dict[str, Any], told: str) -> None:
    assert told in refusal(merged(NEEDED, {"orders": values}))


def test_a_single_pod_is_taken_when_there_is_no_budget() -> None:
    assert render(OTHERWISE).one("Deployment", "b2b-customers")["spec"]["replicas"] == 1
    assert "b2b-customers" not in render(OTHERWISE).names("PodDisruptionBudget")


def connections(values: dict[str, Any], service: str) -> int:
    """What a service may open at once: every pod and the one more of an upgrade, and its commands."""
    release = render(values)
    name = f"b2b-{service}"
    pool = int(release.one("ConfigMap", name)["data"]["DB_POOL_SIZE"])
    deployment = release.one("Deployment", name)["spec"]
    scaled = [one for one in release.all("HorizontalPodAutoscaler") if one["metadata"]["name"] == name]
    pods = scaled[0]["spec"]["maxReplicas"] if scaled else deployment["replicas"]
    surge = deployment["strategy"]["rollingUpdate"]["maxSurge"]
    commands = [
        one
        for one in (*release.all("CronJob"), *release.all("Job"))
        if one["metadata"]["name"].startswith(f"{name}-")
    ]
    return int((pods + surge) * (pool + 1) + len(commands))


def test_pools_that_the_database_could_not_serve_are_refused_to_the_last_connection() -> None:
    needed = sum(connections(NEEDED, service) for service in SERVICES)
    enough = {"global": {"db": {"maxConnections": needed}}}
    short = {"global": {"db": {"maxConnections": needed - 1}}}

    told = refusal(merged(NEEDED, short))

    assert render(merged(NEEDED, enough)).all("Deployment")
    assert f"the pools may open {needed} connections, global.db.maxConnections is {needed - 1}" in told
    assert "autoscaling.maxReplicas" in told
    for service in SERVICES:
        assert f"{service} {connections(NEEDED, service)} = " in told


def test_a_service_with_a_database_of_its_own_counts_for_itself() -> None:
    own = merged(NEEDED, {"orders": {"db": {"maxConnections": 10}}})

    told = refusal(own)

    assert "db.maxConnections is 10" in told
    assert "orders cannot be installed" in told
    roomy = merged(NEEDED, {"orders": {"db": {"poolSize": 40, "maxConnections": 1000}}})
    assert render(roomy).all("Deployment")


@every_service
def test_a_service_alone_refuses_pools_that_the_database_could_not_serve(service: str) -> None:
    values = merged(NEEDED, {"global": {"db": {"maxConnections": 8}}})

    told = refusal(values, chart=SERVICE, files=[SERVICE / f"values-{service}.yaml"])

    assert "db.maxConnections is 8" in told
    assert "db.poolSize" in told
