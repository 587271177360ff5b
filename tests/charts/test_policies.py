"""The evaluator of network policies, on policies whose meaning the documentation of Kubernetes spells out."""

from typing import Any

import pytest

from tests.charts.policies import Endpoint, Policies, selects

WEB = Endpoint("web", "shop", {"app": "web"}, ports={"http": 3001, "admin": 9001}, address="10.0.0.1")
JOB = Endpoint("job", "shop", {"app": "job"}, address="10.0.0.2")
OTHER = Endpoint("other", "elsewhere", {"app": "job"}, {"team": "blue"}, address="10.0.0.3")
WORLD = Endpoint("world", address="203.0.113.7")


def policy(pods: dict[str, str], **spec: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "shop"}, "spec": {"podSelector": {"matchLabels": pods}, **spec}}


def test_without_a_policy_everything_passes() -> None:
    assert Policies([]).allow(WORLD, WEB, 3001)


def test_a_policy_that_allows_nothing_denies_its_direction_and_its_pods_only() -> None:
    denied = Policies([policy({"app": "web"}, policyTypes=["Ingress"])])

    assert not denied.allow(JOB, WEB, 3001)
    assert denied.allow(WEB, JOB, 80)
    assert denied.allow(OTHER, JOB, 80)


def test_a_rule_for_egress_isolates_egress_even_if_no_type_says_so() -> None:
    limited = Policies(
        [policy({"app": "job"}, egress=[{"to": [{"podSelector": {"matchLabels": {"app": "web"}}}]}])]
    )

    assert limited.allow(JOB, WEB, 3001)
    assert not limited.allow(JOB, WORLD, 443)
    assert not limited.allow(WEB, JOB, 80)  # and ingress, always


def test_both_ends_have_to_allow_it() -> None:
    sends = policy({"app": "job"}, policyTypes=["Egress"], egress=[{}])
    takes = policy({"app": "web"}, policyTypes=["Ingress"], ingress=[{"from": [{"podSelector": {}}]}])

    assert Policies([sends, takes]).allow(JOB, WEB, 3001)
    assert not Policies([policy({"app": "job"}, policyTypes=["Egress"]), takes]).allow(JOB, WEB, 3001)
    assert not Policies([sends, policy({"app": "web"})]).allow(JOB, WEB, 3001)


def test_policies_add_up() -> None:
    nothing = policy({}, policyTypes=["Ingress", "Egress"])
    some = policy({"app": "web"}, ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "x"}}}]}])
    more = policy({"app": "web"}, ingress=[{"from": [{"namespaceSelector": {}}]}])

    assert not Policies([nothing, some]).allow(OTHER, WEB, 3001)
    assert Policies([nothing, some, more]).allow(OTHER, WEB, 3001)


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [
        ({"podSelector": {"matchLabels": {"app": "job"}}}, {"job"}),
        ({"namespaceSelector": {}}, {"job", "other"}),
        ({"namespaceSelector": {"matchLabels": {"team": "blue"}}}, {"other"}),
        ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "elsewhere"}}}, {"other"}),
        (
            {
                "namespaceSelector": {"matchLabels": {"team": "blue"}},
                "podSelector": {"matchLabels": {"app": "web"}},
            },
            set(),
        ),
        ({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}, {"world"}),
        ({"ipBlock": {"cidr": "0.0.0.0/0"}}, {"world"}),
    ],
)
def test_a_peer_is_who_its_selectors_mean_together(peer: dict[str, Any], allowed: set[str]) -> None:
    policies = Policies([policy({"app": "web"}, ingress=[{"from": [peer]}])])

    assert {str(one) for one in (JOB, OTHER, WORLD) if policies.allow(one, WEB, 3001)} == allowed


def test_a_block_of_addresses_means_pods_where_the_plugin_says_so() -> None:
    anywhere = policy({"app": "web"}, ingress=[{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}])

    assert Policies([anywhere], blocks_match_pods=True).allow(JOB, WEB, 3001)
    assert not Policies([anywhere]).allow(JOB, WEB, 3001)


@pytest.mark.parametrize(
    ("port", "allowed"),
    [
        ({"port": 3001}, {3001}),
        ({"port": "admin"}, {9001}),
        ({"port": "nowhere"}, set()),
        ({"port": 3000, "endPort": 9000}, {3001}),
        ({"port": 3001, "protocol": "UDP"}, set()),
        ({"protocol": "TCP"}, {3001, 9001, 9002}),
    ],
)
def test_a_port_is_a_number_a_name_or_a_range(port: dict[str, Any], allowed: set[int]) -> None:
    policies = Policies([policy({"app": "web"}, ingress=[{"ports": [port]}])])

    assert {number for number in (3001, 9001, 9002) if policies.allow(JOB, WEB, number)} == allowed


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ({"key": "a", "operator": "In", "values": ["1", "2"]}, True),
        ({"key": "a", "operator": "NotIn", "values": ["1"]}, False),
        ({"key": "b", "operator": "NotIn", "values": ["1"]}, True),
        ({"key": "b", "operator": "In", "values": ["1"]}, False),
        ({"key": "a", "operator": "Exists"}, True),
        ({"key": "a", "operator": "DoesNotExist"}, False),
    ],
)
def test_an_expression_selects(expression: dict[str, Any], expected: bool) -> None:  # noqa: FBT001 - the expected value
    assert selects({"matchExpressions": [expression]}, {"a": "1"}) is expected
