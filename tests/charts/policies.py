"""Who may reach whom: NetworkPolicies, evaluated as a network plugin does.

A connection needs the leave of both ends: an egress rule where a policy isolates the source, an ingress rule
where one isolates the target. Policies only add up; one that selects a pod and allows nothing denies.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, Literal

Direction = Literal["Ingress", "Egress"]


@dataclass(frozen=True)
class Endpoint:
    """A pod, or, without a namespace, something outside of the cluster that has an address."""

    name: str
    namespace: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    """Named ports; other numbers may be listened on, too."""
    address: str = "10.0.0.1"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Policies:
    """The NetworkPolicies of a cluster."""

    objects: Sequence[Mapping[str, Any]]
    blocks_match_pods: bool = False
    """Plugins differ in whether an `ipBlock` also means the pods whose addresses are in it."""

    def allow(self, source: Endpoint, target: Endpoint, port: int, protocol: str = "TCP") -> bool:
        """Whether a connection from one to the other comes about."""
        return self._permits("Egress", source, target, target, port, protocol) and self._permits(
            "Ingress", target, source, target, port, protocol
        )

    def isolates(self, endpoint: Endpoint, direction: Direction) -> bool:
        """Whether only what is allowed may pass."""
        return any(True for _ in self._selecting(endpoint, direction))

    def _permits(  # noqa: PLR0917 - a connection and its end
        self, direction: Direction, end: Endpoint, peer: Endpoint, target: Endpoint, port: int, protocol: str
    ) -> bool:
        rules, peers = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
        selecting = list(self._selecting(end, direction))
        return not selecting or any(
            self._matches_peer(policy, rule.get(peers), peer)
            and _matches_port(rule.get("ports"), target, port, protocol)
            for policy in selecting
            for rule in policy["spec"].get(rules) or ()
        )

    def _selecting(self, endpoint: Endpoint, direction: Direction) -> Iterator[Mapping[str, Any]]:
        for policy in self.objects:
            if endpoint.namespace is None or policy["metadata"]["namespace"] != endpoint.namespace:
                continue
            spec = policy["spec"]
            types = spec.get("policyTypes", ["Ingress", *(["Egress"] if "egress" in spec else [])])
            if direction in types and selects(spec["podSelector"], endpoint.labels):
                yield policy

    def _matches_peer(self, policy: Mapping[str, Any], peers: Any, other: Endpoint) -> bool:
        return not peers or any(self._is_peer(policy, peer, other) for peer in peers)

    def _is_peer(self, policy: Mapping[str, Any], peer: Mapping[str, Any], other: Endpoint) -> bool:
        if "ipBlock" in peer:
            block, address = peer["ipBlock"], ip_address(other.address)
            return (
                (other.namespace is None or self.blocks_match_pods)
                and address in ip_network(block["cidr"])
                and not any(address in ip_network(part) for part in block.get("except", ()))
            )
        if other.namespace is None:
            return False
        if "namespaceSelector" in peer:
            here = selects(
                peer["namespaceSelector"],
                {"kubernetes.io/metadata.name": other.namespace, **other.namespace_labels},
            )
        else:
            here = policy["metadata"]["namespace"] == other.namespace
        return here and selects(peer.get("podSelector", {}), other.labels)


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector means these labels; an empty one means all."""
    return all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items()) and all(
        _holds(expression, labels) for expression in selector.get("matchExpressions", ())
    )


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values", ())
    match expression["operator"]:
        case "In":
            return key in labels and labels[key] in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case other:
            raise ValueError(f"there is no operator {other}")


def _matches_port(ports: Any, target: Endpoint, port: int, protocol: str) -> bool:
    if not ports:
        return True
    for wanted in ports:
        if wanted.get("protocol", "TCP") != protocol:
            continue
        number = wanted.get("port")
        if isinstance(number, str):
            number = target.ports.get(number, -1)
        if number is None or number <= port <= wanted.get("endPort", number):
            return True
    return False
