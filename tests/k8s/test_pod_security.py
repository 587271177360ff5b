"""The evaluator of Pod Security goes red for each rule of the standard."""

from copy import deepcopy
from typing import Any

import pytest

from tests.k8s.pod_security import violations

GOOD: dict[str, Any] = {
    "metadata": {},
    "spec": {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "one",
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
                },
                "ports": [{"containerPort": 80}],
                "livenessProbe": {"httpGet": {"path": "/", "port": 80}},
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    },
}
CONTEXT, ONE = "spec.securityContext", "spec.containers.0"


def changed(path: str, value: Any) -> dict[str, Any]:
    """A good pod with something else in one place."""
    pod = deepcopy(GOOD)
    *way, last = path.split(".")
    place: Any = pod
    for step in way:
        place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
    place[last] = value
    return pod


def test_a_pod_that_asks_for_nothing_is_taken() -> None:
    assert violations(GOOD) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.hostNetwork", True),
        ("spec.hostPID", True),
        ("spec.hostIPC", True),
        ("spec.volumes", [{"name": "root", "hostPath": {"path": "/"}}]),
        ("spec.volumes", [{"name": "share", "nfs": {"server": "nas", "path": "/"}}]),
        (f"{CONTEXT}.sysctls", [{"name": "kernel.msgmax", "value": "1"}]),
        (f"{CONTEXT}.runAsNonRoot", None),
        (f"{CONTEXT}.runAsUser", 0),
        (f"{CONTEXT}.seccompProfile", {}),
        (f"{CONTEXT}.seccompProfile.type", "Unconfined"),
        (f"{CONTEXT}.appArmorProfile.type", "Unconfined"),
        (f"{CONTEXT}.seLinuxOptions.type", "spc_t"),
        (f"{CONTEXT}.seLinuxOptions.user", "root"),
        (f"{CONTEXT}.windowsOptions.hostProcess", True),
        ("metadata.annotations", {"container.apparmor.security.beta.kubernetes.io/one": "unconfined"}),
        (f"{ONE}.securityContext.privileged", True),
        (f"{ONE}.securityContext.allowPrivilegeEscalation", None),
        (f"{ONE}.securityContext.capabilities.drop", ["CHOWN"]),
        (f"{ONE}.securityContext.capabilities.add", ["SYS_ADMIN"]),
        (f"{ONE}.securityContext.runAsNonRoot", False),
        (f"{ONE}.securityContext.runAsUser", 0),
        (f"{ONE}.securityContext.seccompProfile.type", "Unconfined"),
        (f"{ONE}.securityContext.procMount", "Unmasked"),
        (f"{ONE}.ports", [{"containerPort": 80, "hostPort": 80}]),
        (f"{ONE}.livenessProbe.httpGet.host", "169.254.169.254"),
        ("spec.initContainers", [{"name": "first"}]),
        ("spec.ephemeralContainers", [{"name": "debugger"}]),
    ],
)
def test_a_pod_that_asks_for_more_is_refused(path: str, value: Any) -> None:
    assert violations(changed(path, value)) != []
