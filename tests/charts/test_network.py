"""Who may reach whom with the policies that the charts make: all of it, as a network plugin sees it."""

import itertools
from collections.abc import Iterable
from typing import Any

import pytest

from tests.charts.examples import NEEDED, OF_OPERATORS
from tests.charts.policies import Endpoint, Policies
from tests.charts.rendering import NAMESPACE, SERVICE, Object, Release, merged, render

PORTS = (53, 80, 443, 3001, 3002, 3010, 3306, 4318, 9001, 9002, 9010)
"""What anybody may try."""
PUBLIC = {"b2b-customers": 3001, "b2b-orders": 3002, "b2b-orchestrator": 3010}
ADMIN = {"b2b-customers": 9001, "b2b-orders": 9002, "b2b-orchestrator": 9010}
Reach = tuple[str, str, int]

# Beside our pods: what they need, what needs them, and who has no business here.
DATABASE = Endpoint("database", "databases", {"app": "mysql"})
DNS = Endpoint("dns", "kube-system", {"k8s-app": "kube-dns"})
COLLECTOR = Endpoint("collector", "observability", {"app": "collector"})
PROMETHEUS = Endpoint("prometheus", "monitoring", {"app.kubernetes.io/name": "prometheus"})
GATEWAY = Endpoint("gateway", "gateways", {"app": "envoy"})
STRANGER = Endpoint("stranger", "elsewhere", {"app": "stranger"})
NEIGHBOUR = Endpoint("neighbour", NAMESPACE, {"app": "neighbour"})
WORLD = Endpoint("world", address="203.0.113.7")
OUTSIDE = (DATABASE, DNS, COLLECTOR, PROMETHEUS, GATEWAY, STRANGER, NEIGHBOUR, WORLD)

WITH_JOB = {
    "orchestrator": {"job": {"enabled": True, "name": "a", "file": {"configMap": {"name": "a", "key": "a"}}}}
}


def endpoint(where: str, pod: Object) -> Endpoint:
    """A pod of the release; those of a Deployment are named like it, others like their object."""
    named = {
        port["name"]: port["containerPort"]
        for container in pod["spec"]["containers"]
        for port in container.get("ports", ())
    }
    return Endpoint(where.split()[1], NAMESPACE, pod["metadata"]["labels"], ports=named)


def policies(release: Release, *, blocks_match_pods: bool = False) -> Policies:
    objects = [
        {**one, "metadata": {**one["metadata"], "namespace": NAMESPACE}}
        for one in release.all("NetworkPolicy")
    ]
    return Policies(objects, blocks_match_pods)


def reach(release: Release, sources: Iterable[Endpoint], targets: Iterable[Endpoint]) -> set[Reach]:
    """All connections that come about, whichever way a plugin reads blocks of addresses."""
    ways = [policies(release, blocks_match_pods=way) for way in (True, False)]
    return {
        (str(source), str(target), port)
        for source, target, port in itertools.product(sources, targets, PORTS)
        if source is not target and any(way.allow(source, target, port) for way in ways)
    }


def ours(release: Release) -> list[Endpoint]:
    return [endpoint(where, pod) for where, pod in release.pods()]


def anywhere(names: Iterable[str], port: int, targets: Iterable[Endpoint] = OUTSIDE) -> set[Reach]:
    return {(name, str(target), port) for name in names for target in targets}


def test_every_pod_is_isolated_in_both_directions() -> None:
    for values in (NEEDED, OF_OPERATORS):
        release = render(values)
        for pod in ours(release):
            assert policies(release).isolates(pod, "Ingress"), pod
            assert policies(release).isolates(pod, "Egress"), pod


def test_among_our_pods_each_reaches_what_it_calls_and_nothing_else() -> None:
    release = render(merged(NEEDED, WITH_JOB))
    pods = ours(release)

    assert reach(release, pods, pods) == {
        ("b2b-orchestrator", "b2b-customers", 3001),
        ("b2b-orchestrator", "b2b-orders", 3002),
        ("b2b-orders", "b2b-customers", 3001),
        ("b2b-orchestrator-job-a", "b2b-orchestrator", 3010),
        *(("b2b-smoke-test", name, port) for name, port in PUBLIC.items()),
    }


@pytest.mark.parametrize("direction", ["Ingress", "Egress"])
def test_each_end_of_a_connection_is_narrow_by_itself(direction: str) -> None:
    """Otherwise a mistake at one end would be hidden by the other, until that one changes."""
    release = render(merged(NEEDED, WITH_JOB))
    one_end = tuple(
        merged(one, {"spec": {"policyTypes": [direction]}})
        for one in release.all("NetworkPolicy")
        if direction in one["spec"]["policyTypes"]
    )
    job, smoke = "b2b-orchestrator-job-a", "b2b-smoke-test"
    anyhow = {53, 3306, *ADMIN.values()}  # where the others are has not been said

    found = reach(Release("one end", one_end), ours(release), ours(release))

    assert {one for one in found if one[2] not in anyhow} == {
        ("b2b-orchestrator", "b2b-customers", 3001),
        ("b2b-orchestrator", "b2b-orders", 3002),
        ("b2b-orders", "b2b-customers", 3001),
        (job, "b2b-orchestrator", 3010),
        *((smoke, name, port) for name, port in PUBLIC.items()),
        # A smoke test leaves for any service on the port of any.
        # A job is let in where its service is, and its service where the job is.
        *(
            itertools.product([smoke], PUBLIC, PUBLIC.values())
            if direction == "Egress"
            else [
                (job, "b2b-customers", 3001),
                (job, "b2b-orders", 3002),
                ("b2b-orchestrator", "b2b-orchestrator", 3010),
            ]
        ),
    }


def test_our_pods_leave_for_names_and_the_database_and_nothing_else() -> None:
    release = render(merged(NEEDED, WITH_JOB))
    pods = {str(pod) for pod in ours(release)}
    without_database = {"b2b-smoke-test", "b2b-orchestrator-job-a"}

    found = reach(release, ours(release), OUTSIDE)

    assert found == anywhere(pods, 53) | anywhere(pods - without_database, 3306)


def test_nobody_comes_in_but_to_the_admin_ports() -> None:
    release = render(merged(NEEDED, WITH_JOB))
    pods = [one for one in OUTSIDE if one.namespace is not None]

    found = reach(release, OUTSIDE, ours(release))

    # Where Prometheus is has not been said, so it may be any pod; nothing comes from outside of the cluster.
    assert found == {(str(pod), name, port) for pod in pods for name, port in ADMIN.items()}


def test_names_are_asked_for_by_udp_too() -> None:
    release = render(NEEDED)

    for pod in ours(release):
        assert policies(release).allow(pod, DNS, 53, "UDP"), pod
        assert not policies(release).allow(pod, DNS, 123, "UDP"), pod


def test_where_everything_is_said_only_that_is_open() -> None:
    peers = {
        "database": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "databases"}}}],
        "dns": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}],
        "otlp": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "observability"}}}],
        "identityProvider": [{"ipBlock": {"cidr": "203.0.113.0/24"}}],
    }
    release = render(merged(OF_OPERATORS, {"global": {"networkPolicy": peers}}))
    pods = {str(pod) for pod in ours(release)}
    job = {"b2b-orchestrator-job-monday"}
    settled = pods - {"b2b-smoke-test"} - job

    assert reach(release, OUTSIDE, ours(release)) == {
        *(("prometheus", name, port) for name, port in ADMIN.items()),
        *(("gateway", name, port) for name, port in PUBLIC.items()),
    }
    assert reach(release, ours(release), OUTSIDE) == (
        anywhere(pods, 53, [DNS])
        | anywhere(settled, 3306, [DATABASE])
        | anywhere(settled | job, 4318, [COLLECTOR])
        | anywhere(PUBLIC, 443, [WORLD])
    )


@pytest.mark.parametrize(
    "route",
    [
        {"ingress": {"enabled": True, "host": "a.example"}},
        {"httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]}},
    ],
    ids=["ingress", "httproute"],
)
def test_with_a_route_whose_controller_may_be_anywhere_the_public_ports_are_open_and_no_other(
    route: Any,
) -> None:
    release = render(merged(NEEDED, route, {"global": {"config": {"AUTH": "off"}}}))

    found = reach(release, OUTSIDE, ours(release))

    assert {one for one in found if one[2] in PUBLIC.values()} == {
        (str(source), name, port) for source in OUTSIDE for name, port in PUBLIC.items()
    }
    assert {one[1:] for one in found} == {*PUBLIC.items(), *ADMIN.items()}
    assert ("world", "b2b-orders", 9002) not in found


def test_services_that_are_installed_one_by_one_reach_each_other_as_in_the_umbrella() -> None:
    alone = [
        render(NEEDED, chart=SERVICE, files=[SERVICE / f"values-{service}.yaml"], name=f"b2b-{service}")
        for service in ("customers", "orders", "orchestrator")
    ]
    together = Release("all", tuple(itertools.chain.from_iterable(release.objects for release in alone)))
    umbrella = render(NEEDED)
    pods = [pod for pod in ours(umbrella) if str(pod) != "b2b-smoke-test"]

    assert reach(together, ours(together), ours(together)) == reach(umbrella, pods, pods)
    assert reach(together, ours(together), OUTSIDE) == reach(umbrella, pods, OUTSIDE)
    assert reach(together, OUTSIDE, ours(together)) == reach(umbrella, OUTSIDE, pods)


def test_a_job_may_fetch_its_file() -> None:
    url = {"enabled": True, "name": "a", "file": {"url": "https://files.example.com/a.csv"}}
    release = render(merged(NEEDED, {"orchestrator": {"job": url}}))
    (job,) = (pod for pod in ours(release) if str(pod) == "b2b-orchestrator-job-a")

    assert ("b2b-orchestrator-job-a", "world", 443) in reach(release, [job], OUTSIDE)
    assert ("b2b-orchestrator-job-a", "world", 80) not in reach(release, [job], OUTSIDE)


def test_policies_can_be_left_to_others() -> None:
    values = merged(NEEDED, {"global": {"networkPolicy": {"enabled": False}}})

    assert render(values).all("NetworkPolicy") == []
