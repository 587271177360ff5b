"""The rules of two linters of manifests: kube-score 1.20 (README_CHECKS.md), Polaris (`pkg/config/checks`).

`CHECKS` has those that apply, by the names that they have there; each gives what breaks it. What Pod Security
`restricted` asks for is in test_pods.py. `EXCEPTIONS` has those that we do not follow, with the reason.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.charts.examples import EXAMPLES, NEEDED
from tests.charts.policies import selects
from tests.charts.rendering import Object, Release, merged, refusal, render
from tests.charts.test_network import endpoint, policies
from tests.charts.test_pods import containers

EXCEPTIONS = {
    "container-resources: CPU limit; cpuLimitsMissing": "it throttles the event loop during a request",
    "container-resource-requests-equal-limits": "a request says what is usual, a limit what is too much",
    "container-image-pull-policy; pullPolicyNotAlways": "what a version or digest names never changes",
    "deployment-has-host-podantiaffinity": "topologySpreadConstraints say it, and fit a small cluster, too",
    "networkpolicy-targets-pod: that of commands": "a hook runs before an upgrade could make it",
    "priorityClassNotSet": "classes belong to the cluster; `priorityClassName` names one",
    "sensitiveContainerEnvVar: DB_PASSWORD": "by reference to a Secret, and only with `db.host`",
    "sensitiveConfigmapContent: SERVICE_TOKEN_FILE": "the path of a file, not what is in it",
    "metadataAndInstanceMismatched": "the label is the release, as Helm's conventions have it",
    "tlsSettingsMissing; gateway*; httpRoute*": "TLS ends at the gateway or load balancer of the operator",
    "deployment-replicas; hpaMinAvailability: one pod": "only where somebody asked for it, without a budget",
}

Offenders = Iterator[str]
CHECKS: dict[str, Callable[[Release], Offenders]] = {}


def check(names: str) -> Callable[[Callable[[Release], Offenders]], Callable[[Release], Offenders]]:
    """Register a check under the names that the linters give it."""

    def register(function: Callable[[Release], Offenders]) -> Callable[[Release], Offenders]:
        CHECKS[names] = function
        return function

    return register


def every_container(release: Release) -> Iterator[tuple[str, Object]]:
    for where, pod in release.pods():
        for container in containers(pod):
            yield f"{where} {container['name']}", container


def selected(release: Release, selector: dict[str, Any]) -> list[str]:
    return [where for where, pod in release.pods() if selects(selector, pod["metadata"]["labels"])]


@check("container-resources; cpuRequestsMissing; memoryRequestsMissing; memoryLimitsMissing")
def resources(release: Release) -> Offenders:
    for where, container in every_container(release):
        found = container.get("resources", {})
        if not {"cpu", "memory"} <= set(found.get("requests", ())) or "memory" not in found.get("limits", ()):
            yield where


@check("container-ephemeral-storage-request-and-limit")
def ephemeral_storage(release: Release) -> Offenders:
    for where, container in every_container(release):
        if any("ephemeral-storage" not in container["resources"][part] for part in ("requests", "limits")):
            yield where


@check("container-image-tag; tagNotSpecified")
def image(release: Release) -> Offenders:
    for where, container in every_container(release):
        if not re.search(r":(?!latest$)[\w.-]+$|@sha256:[0-9a-f]{64}$", container["image"]):
            yield where


@check("container-security-context-user-group-id")
def user(release: Release) -> Offenders:
    for where, pod in release.pods():
        context = pod["spec"]["securityContext"]
        if min(context.get("runAsUser", 0), context.get("runAsGroup", 0)) < 10_000:
            yield where


@check("container-ports-check")
def ports(release: Release) -> Offenders:
    for where, container in every_container(release):
        names = [port["name"] for port in container.get("ports", ())]
        if len(set(names)) < len(names) or any(len(name) > 15 for name in names):
            yield where


@check("environment-variable-key-duplication")
def environment(release: Release) -> Offenders:
    for where, container in every_container(release):
        if max(Counter(variable["name"] for variable in container.get("env", ())).values(), default=0) > 1:
            yield where


@check("pod-probes; readinessProbeMissing; livenessProbeMissing; pod-probes-identical")
def probes(release: Release) -> Offenders:
    for where, pod in release.pods():
        for container in pod["spec"]["containers"] if where.startswith("Deployment") else ():
            readiness, liveness = container.get("readinessProbe"), container.get("livenessProbe")
            if not readiness or not liveness or readiness["httpGet"] == liveness["httpGet"]:
                yield where


@check("pod-networkpolicy; missingNetworkPolicy")
def isolated(release: Release) -> Offenders:
    for where, pod in release.pods():
        found = policies(release)
        if not all(found.isolates(endpoint(where, pod), way) for way in ("Ingress", "Egress")):
            yield where


@check("networkpolicy-targets-pod")
def policies_of_pods(release: Release) -> Offenders:
    for policy in release.all("NetworkPolicy"):
        name = policy["metadata"]["name"]
        if not name.endswith("-commands") and not selected(release, policy["spec"]["podSelector"]):
            yield name


@check("service-targets-pod; service-type")
def services(release: Release) -> Offenders:
    for service in release.all("Service"):
        target = selected(release, {"matchLabels": service["spec"]["selector"]})
        if not target or service["spec"]["type"] != "ClusterIP":
            yield service["metadata"]["name"]


@check("ingress-targets-service")
def routes(release: Release) -> Offenders:
    known = {
        (service["metadata"]["name"], port[by])
        for service in release.all("Service")
        for port in service["spec"]["ports"]
        for by in ("name", "port")
    }
    for ingress in release.all("Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                service = path["backend"]["service"]
                if (service["name"], *service["port"].values()) not in known:
                    yield path["path"]
    for route in release.all("HTTPRoute"):
        for rule in route["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                if (backend["name"], backend["port"]) not in known:
                    yield backend["name"]


@check("deployment-has-poddisruptionbudget; missingPodDisruptionBudget; poddisruptionbudget-has-policy")
def budgets(release: Release) -> Offenders:
    covered = [
        where
        for budget in release.all("PodDisruptionBudget")
        if {"maxUnavailable", "minAvailable"} & set(budget["spec"])
        for where in selected(release, budget["spec"]["selector"])
    ]
    for deployment in release.all("Deployment"):
        name = f"Deployment {deployment['metadata']['name']}"
        if deployment["spec"].get("replicas") != 1 and covered.count(name) != 1:
            yield name


@check("deployment-strategy; deployment-pod-selector-labels-match-template-metadata-labels")
def deployments(release: Release) -> Offenders:
    for deployment in release.all("Deployment"):
        spec = deployment["spec"]
        labels = spec["template"]["metadata"]["labels"]
        if spec["strategy"]["type"] != "RollingUpdate" or not selects(spec["selector"], labels):
            yield deployment["metadata"]["name"]


@check("topologySpreadConstraint")
def spread(release: Release) -> Offenders:
    for deployment in release.all("Deployment"):
        found = deployment["spec"]["template"]["spec"].get("topologySpreadConstraints", ())
        if not {"kubernetes.io/hostname", "topology.kubernetes.io/zone"} & {
            one["topologyKey"] for one in found
        }:
            yield deployment["metadata"]["name"]


@check(
    "horizontalpodautoscaler-has-target; deployment-targeted-by-hpa-does-not-have-replicas-configured; "
    "hpaMaxAvailability; hpaMinAvailability; horizontalpodautoscaler-replicas"
)
def autoscalers(release: Release) -> Offenders:
    replicas = {one["metadata"]["name"]: one["spec"].get("replicas") for one in release.all("Deployment")}
    for scaler in release.all("HorizontalPodAutoscaler"):
        spec = scaler["spec"]
        target = spec["scaleTargetRef"]["name"]
        if replicas.get(target, "missing") is not None or not 2 <= spec["minReplicas"] < spec["maxReplicas"]:
            yield target


@check("cronjob-has-deadline; cronjob-restartpolicy; job restart policy")
def cron_jobs(release: Release) -> Offenders:
    for cron_job in release.all("CronJob"):
        if cron_job["spec"].get("startingDeadlineSeconds") is None:
            yield cron_job["metadata"]["name"]
    for where, pod in release.pods():
        if not where.startswith("Deployment") and pod["spec"].get("restartPolicy") not in (
            "Never",
            "OnFailure",
        ):
            yield where


@check("label-values; names")
def labels_and_names(release: Release) -> Offenders:
    for one in (*release.objects, *(pod for _, pod in release.pods())):
        metadata = one["metadata"]
        for value in metadata.get("labels", {}).values():
            if not re.fullmatch(r"([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?", str(value)):
                yield f"label {value}"
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", metadata.get("name", "a")):
            yield metadata["name"]
    for cron_job in release.names("CronJob"):
        if len(cron_job) > 52:  # eleven characters are added for each Job
            yield cron_job


@check("stable-version")
def stable(release: Release) -> Offenders:
    for one in release.objects:
        if (
            re.search("alpha|beta", one["apiVersion"]) and one["apiVersion"] != "keda.sh/v1alpha1"
        ):  # KEDA has no other
            yield one["apiVersion"]


@check("clusterrole*; role*")
def roles(release: Release) -> Offenders:
    for kind in ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"):
        yield from release.names(kind)


@pytest.mark.parametrize("names", CHECKS)
def test_what_the_linters_ask_for_holds_of_every_example(names: str) -> None:
    for example, values in EXAMPLES.items():
        assert list(CHECKS[names](render(values))) == [], example


NOWHERE = {"path": "/", "backend": {"service": {"name": "b2b-orders", "port": {"name": "x"}}}}


@pytest.mark.parametrize(
    ("function", "kind", "spec"),
    [
        (policies_of_pods, "NetworkPolicy", {"podSelector": {"matchLabels": {"app": "nobody"}}}),
        (services, "Service", {"type": "NodePort"}),
        (services, "Service", {"selector": {"app": "nobody"}}),
        (routes, "Ingress", {"rules": [{"http": {"paths": [NOWHERE]}}]}),
        (budgets, "PodDisruptionBudget", {"selector": {"matchLabels": {"app": "nobody"}}}),
        (deployments, "Deployment", {"strategy": {"type": "Recreate"}}),
        (deployments, "Deployment", {"selector": {"matchLabels": {"app": "nobody"}}}),
        (spread, "Deployment", {"template": {"spec": {"topologySpreadConstraints": []}}}),
        (autoscalers, "HorizontalPodAutoscaler", {"minReplicas": 1}),
        (autoscalers, "HorizontalPodAutoscaler", {"scaleTargetRef": {"name": "nobody"}}),
        (
            cron_jobs,
            "CronJob",
            {"jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Always"}}}}},
        ),
        (user, "Deployment", {"template": {"spec": {"securityContext": {"runAsUser": 1000}}}}),
        (isolated, "NetworkPolicy", {"policyTypes": ["Ingress"]}),
    ],
)
def test_a_manifest_that_breaks_a_rule_is_noticed(
    function: Callable[[Release], Offenders], kind: str, spec: dict[str, Any]
) -> None:
    release = render(EXAMPLES["of-operators"])
    objects = tuple(merged(one, {"spec": spec}) if one["kind"] == kind else one for one in release.objects)

    assert list(function(release)) == []
    assert list(function(Release("broken", objects)))


@pytest.mark.parametrize(
    ("function", "container"),
    [
        (resources, {"resources": {"requests": {"cpu": 1}}}),
        (ephemeral_storage, {"resources": {"requests": {}, "limits": {}}}),
        (image, {"image": "b2b-orders"}),
        (image, {"image": "b2b-orders:latest"}),
        (image, {"image": "registry.example:5000/b2b-orders"}),
        (ports, {"ports": [{"name": "http"}, {"name": "http"}]}),
        (environment, {"env": [{"name": "A"}, {"name": "A"}]}),
        (probes, {"livenessProbe": {"httpGet": {"path": "/readyz", "port": "admin"}}}),
    ],
)
def test_a_container_that_breaks_a_rule_is_noticed(
    function: Callable[[Release], Offenders], container: dict[str, Any]
) -> None:
    release = render(NEEDED)
    deployment = release.one("Deployment", "b2b-orders")
    (good,) = deployment["spec"]["template"]["spec"]["containers"]
    bad = merged(deployment, {"spec": {"template": {"spec": {"containers": [{**good, **container}]}}}})

    assert list(function(release)) == []
    assert list(function(Release("broken", (bad,))))


def test_every_exception_has_a_reason() -> None:
    assert all(len(reason) > 20 for reason in EXCEPTIONS.values())
    assert not {name for names in CHECKS for name in names.split("; ")} & set(EXCEPTIONS)


def test_names_are_valid_for_the_longest_release_name_that_is_taken() -> None:
    """Helm takes 53 characters; a name that is too long for ours is refused, not cut off."""
    longest = 40 - len("-orchestrator")
    cron = {"orders": {"cronJobs": {"a" * 11: {"schedule": "0 0 * * *"}}}}
    file = {"url": "https://files.example.com/a.csv"}
    job = {"orchestrator": {"job": {"enabled": True, "name": "j" * 16, "file": file}}}
    switches = {"dashboards": {"enabled": True}, "prometheusRule": {"enabled": True}}

    release = render(merged(NEEDED, cron, job, switches), name="r" * longest)

    assert list(labels_and_names(release)) == []
    assert "is too long" in refusal(NEEDED, name="r" * (longest + 1))


@pytest.mark.parametrize("name", ["a" * 12, "expire-"])
def test_a_cron_job_whose_name_would_not_be_valid_is_refused(name: str) -> None:
    assert name in refusal(merged(NEEDED, {"orders": {"cronJobs": {name: {"schedule": "0 0 * * *"}}}}))
