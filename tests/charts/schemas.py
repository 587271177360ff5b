"""Whether an API server would take an object: unknown fields and wrong types are errors.

The schemas of Kubernetes are those of kubernetes-validate. Custom resources have none there; for the few
fields that the charts write, `CUSTOM` says what the CRDs say, and leaves out the rest.
"""

import json
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it ships no types
from referencing import Registry, Resource

VERSIONS = ("1.31", "1.32", "1.33", "1.34", "1.35")


def errors(one: dict[str, Any], version: str) -> Iterator[str]:
    """What is wrong with an object, for a version of Kubernetes."""
    for error in _validator(one["apiVersion"], one["kind"], version).iter_errors(one):
        where = ".".join(str(part) for part in error.absolute_path)
        yield f"{one['kind']} {one['metadata']['name']} {where}: {error.message}"


@cache
def _validator(api_version: str, kind: str, version: str) -> Draft202012Validator:
    if (custom := CUSTOM.get((api_version, kind))) is not None:
        head = {"apiVersion": {"const": api_version}, "kind": {"const": kind}}
        metadata = _object({"name": _TEXT, "labels": _TEXTS}, {"annotations": _TEXTS})
        return Draft202012Validator(_object({**head, "metadata": metadata, "spec": custom}))
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)  # networking.k8s.io/v1: networking-v1
    schema = _file(f"{kind.lower()}-{group}.json", version)
    registry: Registry[Any] = _definitions(version) @ Registry()
    return Draft202012Validator(schema, registry=Resource.from_contents(schema) @ registry)


@cache
def _definitions(version: str) -> Resource[Any]:
    return Resource.from_contents(_file("_definitions.json", version))


def _file(name: str, version: str) -> Any:
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    return json.loads((folder / name).read_text())


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """An object that has these fields, may have the others, and nothing else."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": items}


_TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
_NUMBER: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_PORT: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": 65535}
_TEXTS: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "string"}}
_DURATION: dict[str, Any] = {"type": "string", "pattern": "^(0|([0-9]+[ywdhms])+)$"}
_ADDRESS: dict[str, Any] = {"type": "string", "pattern": "^https?://[^/]+"}
_SCALING = _object(
    {
        "policies": _list(
            _object({"type": {"enum": ["Pods", "Percent"]}, "value": _NUMBER, "periodSeconds": _NUMBER})
        )
    },
    {"stabilizationWindowSeconds": _NUMBER, "selectPolicy": {"enum": ["Max", "Min", "Disabled"]}},
)
_RULE: dict[str, Any] = {
    "oneOf": [
        _object({"record": _TEXT, "expr": _TEXT}, {"labels": _TEXTS}),
        _object({"alert": _TEXT, "expr": _TEXT}, {"for": _DURATION, "labels": _TEXTS, "annotations": _TEXTS}),
    ]
}

CUSTOM: dict[tuple[str, str], dict[str, Any]] = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"): _object(
        {
            "selector": _object({"matchLabels": _TEXTS}),
            "endpoints": _list(_object({"port": _TEXT}, {"path": _TEXT, "interval": _DURATION})),
        },
        {"jobLabel": _TEXT},
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): _object(
        {"groups": _list(_object({"name": _TEXT, "rules": _list(_RULE)}, {"interval": _DURATION}))}
    ),
    ("keda.sh/v1alpha1", "ScaledObject"): _object(
        {
            "scaleTargetRef": _object({"name": _TEXT}),
            "triggers": _list(
                _object(
                    {
                        "type": {"const": "prometheus"},
                        "metadata": _object(
                            {"serverAddress": _ADDRESS, "query": _TEXT, "threshold": _TEXT},
                            {"ignoreNullValues": {"enum": ["true", "false"]}},
                        ),
                    },
                    {"metricType": {"enum": ["AverageValue", "Value"]}},
                )
            ),
        },
        {
            "minReplicaCount": _NUMBER,
            "maxReplicaCount": _NUMBER,
            "pollingInterval": _NUMBER,
            "cooldownPeriod": _NUMBER,
            "fallback": _object(
                {"failureThreshold": _NUMBER, "replicas": _NUMBER},
                {"behavior": {"enum": ["static", "currentReplicas", "currentReplicasIfHigher"]}},
            ),
            "advanced": _object(
                {
                    "horizontalPodAutoscalerConfig": _object(
                        {"behavior": _object({"scaleUp": _SCALING, "scaleDown": _SCALING})}
                    )
                }
            ),
        },
    ),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): _object(
        {
            "parentRefs": _list(
                _object({"name": _TEXT}, {"namespace": _TEXT, "sectionName": _TEXT, "port": _PORT})
            ),
            "rules": _list(
                _object(
                    {
                        "matches": _list(
                            _object(
                                {"path": _object({"type": {"enum": ["Exact", "PathPrefix"]}, "value": _TEXT})}
                            )
                        ),
                        "backendRefs": _list(_object({"name": _TEXT, "port": _PORT})),
                    }
                )
            ),
        },
        {"hostnames": _list(_TEXT)},
    ),
}
"""The specs of the custom resources that the charts make."""
