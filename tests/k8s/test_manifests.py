"""The objects of k8s/: what an API server says of them, and what a reviewer would ask."""

import re
import shlex
from itertools import chain, pairwise
from pathlib import Path

import pytest
import yaml

from chassis.settings import parse_database_url
from dev.stack import ROOT
from tests.charts.schemas import VERSIONS, errors
from tests.k8s.manifests import K8S, Object, built, named, pod_templates, secret
from tests.k8s.pod_security import violations

DEMO = K8S / "demo"
SMOKE_TEST: Object = yaml.safe_load((K8S / "smoke-test.yaml").read_text())
OBJECTS = [*built(), *built(DEMO), SMOKE_TEST]
TEMPLATES = [*pod_templates(), *pod_templates(DEMO), ("Job smoke-test", SMOKE_TEST["spec"]["template"])]
OURS = "b2b-orders"
"""The image without a tag, which skaffold replaces."""
README = (K8S / "README.md").read_text()


@pytest.mark.parametrize("version", VERSIONS)
def test_an_api_server_takes_every_object(version: str) -> None:
    assert [wrong for one in OBJECTS for wrong in errors(one, version)] == []


@pytest.mark.parametrize("name", ["b2b-infra", "b2b-orders"])
def test_namespaces_enforce_restricted(name: str) -> None:
    assert (
        named("Namespace", name)["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    )


@pytest.mark.parametrize(("name", "template"), TEMPLATES, ids=[name for name, _ in TEMPLATES])
def test_every_pod_meets_restricted(name: str, template: Object) -> None:
    assert violations(template) == [], name


@pytest.mark.parametrize(("name", "template"), TEMPLATES, ids=[name for name, _ in TEMPLATES])
def test_every_pod_is_small_and_pinned_and_knows_nothing_of_the_cluster(name: str, template: Object) -> None:
    spec = template["spec"]

    assert spec["enableServiceLinks"] is False
    assert spec["automountServiceAccountToken"] is (name == "Deployment prometheus")
    assert spec["securityContext"]["runAsUser"] > 0
    for one in spec["containers"]:
        assert re.fullmatch(rf"{OURS}|[a-z/-]+:v?\d+\.\d+\.\d+|[a-z/-]+@sha256:[0-9a-f]{{64}}", one["image"])
        assert one["securityContext"]["readOnlyRootFilesystem"] is True
        assert set(one["resources"]["requests"]) >= {"cpu", "memory"}
        assert "memory" in one["resources"]["limits"]
        assert "cpu" not in one["resources"]["limits"]


def test_all_of_it_fits_a_laptop_and_the_readme_says_how_much_it_is() -> None:
    requests = [
        one["resources"]["requests"]
        for _, template in pod_templates()
        for one in template["spec"]["containers"]
    ]

    cpu = sum(int(one["cpu"].removesuffix("m")) for one in requests)
    memory = sum(int(one["memory"].removesuffix("Mi")) for one in requests)
    assert (cpu <= 500, memory <= 1024) == (True, True)
    assert f"{cpu}m CPU and\n{memory} MiB" in README


def test_every_object_says_its_namespace_and_nothing_is_there_twice() -> None:
    places = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in OBJECTS]

    assert len(places) == len(set(places))
    assert {namespace for kind, namespace, _ in places if kind != "Namespace"} == {"b2b-infra", "b2b-orders"}


def test_what_a_pod_mounts_or_reads_is_there() -> None:
    there = {(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in OBJECTS}
    for folder in (K8S, DEMO):
        for one in built(folder):
            if "template" not in one.get("spec", {}):
                continue
            spec, namespace = one["spec"]["template"]["spec"], one["metadata"]["namespace"]
            named_there = [("ConfigMap", v["configMap"]["name"]) for v in spec["volumes"] if "configMap" in v]
            named_there += [
                ("Secret", source["secretRef"]["name"])
                for container in spec["containers"]
                for source in container.get("envFrom", ())
            ]
            named_there += (
                [("ServiceAccount", spec["serviceAccountName"])] if "serviceAccountName" in spec else []
            )
            for kind, name in named_there:
                assert (kind, namespace, name) in there
            claims = {claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", ())}
            volumes = {volume["name"] for volume in spec["volumes"]} | claims
            for mount in chain.from_iterable(c.get("volumeMounts", ()) for c in spec["containers"]):
                assert mount["name"] in volumes


def port_of(service: Object, port: int) -> int:
    """The port of the pods behind a port of a Service."""
    (wanted,) = (one["targetPort"] for one in service["spec"]["ports"] if one["port"] == port)
    (template,) = (
        template
        for _, template in pod_templates()
        if service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    )
    (number,) = (
        one["containerPort"]
        for container in template["spec"]["containers"]
        for one in container["ports"]
        if one["name"] == wanted
    )
    return int(number)


def test_every_port_of_a_service_leads_to_a_container() -> None:
    for service in (one for one in built() if one["kind"] == "Service"):
        for port in service["spec"]["ports"]:
            assert port_of(service, port["port"]) == port["port"]


def test_prometheus_may_see_pods_of_the_services_and_nothing_else() -> None:
    role, binding = named("Role", "prometheus"), named("RoleBinding", "prometheus")

    assert role["metadata"]["namespace"] == binding["metadata"]["namespace"] == "b2b-orders"
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    assert binding["roleRef"]["name"] == "prometheus"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "prometheus", "namespace": "b2b-infra"}]
    assert not [one for one in built() if one["kind"].startswith("ClusterRole")]


def test_passwords_are_marked_as_of_development() -> None:
    assert set(secret("mysql")) == {"MYSQL_ROOT_PASSWORD", "SERVICES_PASSWORD"}
    for values in (secret("mysql"), secret("b2b-orders-development")):
        assert all("development-only" in value for value in values.values())
    for file in (K8S / "kustomization.yaml", K8S / "infra" / "kustomization.yaml"):
        assert re.search(r"DEVELOPMENT ONLY.*\nsecretGenerator", file.read_text())


@pytest.mark.parametrize("service", ["customers", "orders", "orchestrator"])
def test_the_secret_leads_each_service_to_its_database(service: str) -> None:
    url = parse_database_url(secret("b2b-orders-development")[f"{service.upper()}_DATABASE_URL"])

    assert (url.username, url.database) == (service, service)
    assert url.password == secret("mysql")["SERVICES_PASSWORD"]
    assert url.host == "mysql.b2b-infra"
    assert port_of(named("Service", "mysql"), url.port or 3306) == 3306


# --- README.md ----------------------------------------------------------------------------------


def commands() -> list[list[str]]:
    """The commands of k8s/README.md, in blocks and in tables."""
    return [
        shlex.split(line) for line in re.findall(r"^kubectl .*$|(?<=`)kubectl [^`]*", README, re.MULTILINE)
    ]


def test_every_command_of_the_readme_names_what_is_there() -> None:
    verbs = set()
    for command in commands():
        assert command[0] == "kubectl"
        options = dict(pairwise(command))
        namespace = options.get("-n", "")
        if "-k" in options:
            assert built(ROOT / options["-k"])
            verbs.add(command[1])
            continue
        verbs.add(command[3])
        kind, _, name = command[4 if command[3] != "rollout" else 5].partition("/")
        kinds = {"svc": "Service", "deploy": "Deployment", "statefulset": "StatefulSet"}
        found = named(kinds[kind], name)
        assert found["metadata"]["namespace"] == namespace
        if command[3] == "port-forward":
            local, _, port = command[5].partition(":")
            assert port_of(found, int(port or local))
    assert verbs >= {"apply", "rollout", "port-forward", "delete"}


def test_the_readme_says_how_to_reach_everything_that_has_a_service() -> None:
    forwarded = {command[4] for command in commands() if "port-forward" in command}

    assert forwarded == {f"svc/{one['metadata']['name']}" for one in built() if one["kind"] == "Service"}


def test_the_boards_find_jaeger_where_it_is_forwarded_to() -> None:
    for board in Path(ROOT, "charts", "b2b-orders", "dashboards").glob("*.json"):
        assert '"http://localhost:16686"' in board.read_text()
    assert "port-forward svc/jaeger 16686" in README
