"""The Pod Security standard `restricted`, as its documentation states it: what a pod may not ask for.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from collections.abc import Iterator, Mapping
from typing import Any

Spec = Mapping[str, Any]

_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected",
    "secret",
}  # fmt: skip
_SECCOMP = ("RuntimeDefault", "Localhost")
_APP_ARMOR = ("RuntimeDefault", "Localhost")
_SELINUX_TYPES = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
_SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
}  # fmt: skip


def violations(template: Spec) -> list[str]:
    """What of a pod (its metadata and spec) an API server that enforces `restricted` refuses."""
    spec = template["spec"]
    return [
        *_of_pod(template.get("metadata", {}), spec),
        *(fault for one in _containers(spec) for fault in _of_container(spec, one)),
    ]


def _of_pod(metadata: Spec, spec: Spec) -> Iterator[str]:
    context = spec.get("securityContext", {})
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield name
    for volume in spec.get("volumes", ()):
        for kind in set(volume) - {"name"} - _VOLUMES:
            yield f"volume {volume['name']} is a {kind}"
    for sysctl in context.get("sysctls", ()):
        if sysctl["name"] not in _SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    for name, profile in metadata.get("annotations", {}).items():
        if name.startswith("container.apparmor.security.beta.kubernetes.io/") and profile == "unconfined":
            yield f"AppArmor {profile}"
    yield from _of_context("the pod", context)


def _of_container(spec: Spec, one: Spec) -> Iterator[str]:
    name, context = f"container {one['name']}", one.get("securityContext", {})
    both = {**spec.get("securityContext", {}), **context}
    capabilities = context.get("capabilities", {})
    if context.get("privileged"):
        yield f"{name} is privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{name} may escalate privileges"
    if "ALL" not in capabilities.get("drop", ()):
        yield f"{name} keeps capabilities"
    if added := set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
        yield f"{name} adds capabilities {sorted(added)}"
    if both.get("runAsNonRoot") is not True:
        yield f"{name} may run as root"
    if both.get("seccompProfile", {}).get("type") not in _SECCOMP:
        yield f"{name} has no seccomp profile"
    if context.get("procMount", "Default") != "Default":
        yield f"{name} has another procMount"
    yield from _of_network(name, one)
    yield from _of_context(name, context)


def _of_network(name: str, one: Spec) -> Iterator[str]:
    for port in one.get("ports", ()):
        if port.get("hostPort"):
            yield f"{name} has a host port"
    for probe in (
        *(one.get(f"{kind}Probe", {}) for kind in ("startup", "readiness", "liveness")),
        *_hooks(one),
    ):
        for action in ("httpGet", "tcpSocket"):
            if probe.get(action, {}).get("host"):
                yield f"{name} is probed at another host"


def _of_context(name: str, context: Spec) -> Iterator[str]:
    """What neither a pod nor a container may say of itself."""
    if context.get("runAsUser") == 0:
        yield f"{name} runs as user 0"
    if context.get("runAsNonRoot") is False:
        yield f"{name} says that it runs as root"
    if context.get("seccompProfile", {}).get("type", _SECCOMP[0]) not in _SECCOMP:
        yield f"{name} is unconfined"
    if context.get("appArmorProfile", {}).get("type", _APP_ARMOR[0]) not in _APP_ARMOR:
        yield f"{name} has no AppArmor profile"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield f"{name} is a host process"
    selinux = context.get("seLinuxOptions", {})
    if selinux.get("type", "") not in _SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield f"{name} has other SELinux options"


def _containers(spec: Spec) -> Iterator[Spec]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(kind, ())


def _hooks(one: Spec) -> Iterator[Spec]:
    yield from one.get("lifecycle", {}).values()
