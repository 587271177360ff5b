"""Values that the tests share: what is needed, the files of the tree, and two sets with every switch on."""

from pathlib import Path
from typing import Any

from dev.stack import ROOT
from tests.charts.rendering import CHARTS, SERVICE, UMBRELLA

NEEDED: dict[str, Any] = {"global": {"db": {"existingSecret": "b2b-orders"}}}

PROMETHEUS = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}},
    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
}
GATEWAY = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateways"}}}

OF_OPERATORS: dict[str, Any] = {
    "global": {
        "image": {
            "repository": "registry.example/team/b2b-orders",
            "digest": f"sha256:{'0123456789abcdef' * 4}",
            "pullPolicy": "Always",
            "pullSecrets": [{"name": "registry"}],
        },
        "db": {
            "existingSecret": "database",
            "host": "mysql.databases",
            "name": "shop",
            "poolSize": 4,
            "maxConnections": 300,
        },
        "serviceToken": {"existingSecret": "service-token", "key": "tokens"},
        "config": {
            "AUTH": "jwt",
            "OIDC_ISSUER": "https://id.example.com/",
            "OIDC_AUDIENCE": "b2b-orders",
            "OIDC_JWKS": "https://id.example.com/jwks",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.observability:4318",
        },
        "networkPolicy": {"prometheus": [PROMETHEUS], "ingress": [GATEWAY]},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    },
    "orders": {
        "config": {"CANCEL_WINDOW": 300},
        "podLabels": {"team": "sales"},
        "podAnnotations": {"example.com/owner": "sales"},
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [{"key": "sales", "operator": "Exists", "effect": "NoSchedule"}],
        "priorityClassName": "high",
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "serviceAccount": {"annotations": {"example.com/role": "orders"}},
        "cronJobs": {"expire": {"enabled": True, "suspend": True, "timeZone": "Europe/Berlin"}},
    },
    "orchestrator": {
        "job": {
            "enabled": True,
            "name": "monday",
            "file": {"configMap": {"name": "orders-of-monday", "key": "orders.csv"}},
            "resultsClaim": "results",
            "token": {"existingSecret": "job-token"},
        },
    },
    "ingress": {
        "enabled": True,
        "className": "traefik",
        "host": "orders.example.com",
        "tlsSecret": "certificate",
        "annotations": {"cert-manager.io/cluster-issuer": "letsencrypt"},
    },
    "dashboards": {"enabled": True, "labels": {"team": "sales"}, "annotations": {"grafana_folder": "B2B"}},
    "prometheusRule": {
        "enabled": True,
        "labels": {"release": "prometheus"},
        "runbookBaseUrl": "https://git.example.com/b2b-orders/blob/main",
    },
    "smokeTest": {"token": {"existingSecret": "smoke-token"}},
}
"""Ingress, HPA, hooks, digests, access tokens, and everything that operators look at."""

_OTHERWISE: dict[str, Any] = {
    "autoscaling": {"hpa": {"enabled": False}, "keda": {"enabled": True}},
    "migrations": {"mode": "initContainer"},
    "serviceAccount": {"create": False, "name": "shared"},
}
OTHERWISE: dict[str, Any] = {
    **NEEDED,
    "customers": {
        "autoscaling": {"hpa": {"enabled": False}},
        "replicas": 1,
        "podDisruptionBudget": {"enabled": False},
        "migrations": {"mode": "none"},
    },
    "orders": {**_OTHERWISE, "cronJobs": {"expire": {"enabled": False}}},
    "orchestrator": {
        **_OTHERWISE,
        "job": {"enabled": True, "name": "friday", "file": {"url": "https://files.example.com/friday.jsonl"}},
    },
    "httpRoute": {
        "enabled": True,
        "parentRefs": [{"name": "public", "namespace": "gateways", "sectionName": "https"}],
        "hostnames": ["orders.example.com"],
    },
}
OTHERWISE["global"] = {**NEEDED["global"], "config": {"AUTH": "off"}, "image": {"writableRoot": True}}
"""The other way of each choice: HTTPRoute, KEDA or a fixed number, init containers or no migrations."""

EXAMPLES = {"needed": NEEDED, "of-operators": OF_OPERATORS, "otherwise": OTHERWISE}
"""For the umbrella chart."""


def files_of_values() -> list[tuple[Path, Path]]:
    """Every file of values in the tree, beside the defaults, with the chart that it is for."""
    found = [*CHARTS.rglob("values-*.yaml"), *(ROOT / "k8s").rglob("*values*.yaml")]
    return [(SERVICE if "service" in file.parts else UMBRELLA, file) for file in sorted(found)]
