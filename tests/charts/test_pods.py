"""Every pod that the charts make: what it may do, what it asks for, and how it comes and goes."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from chassis.app import ADMIN
from chassis.probes import CHECK_TIMEOUT_SECONDS
from chassis.telemetry.export import LAST_SECONDS
from customers.app import create_app
from customers.settings import Settings
from orchestrator.driver import GIVE_BACK_SECONDS
from tests.charts.examples import EXAMPLES, NEEDED, OF_OPERATORS, files_of_values
from tests.charts.policies import selects
from tests.charts.rendering import SERVICES, Object, Release, merged, refusal, render

UID = 10001
VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
"""Volumes of Pod Security `restricted` that are in use here."""


def releases() -> list[Release]:
    """The umbrella with every example, and every chart with every file of values."""
    return [
        *(render(values) for values in EXAMPLES.values()),
        *(render(NEEDED, chart=chart, files=[file]) for chart, file in files_of_values()),
    ]


def every_pod() -> Iterator[tuple[str, Object]]:
    """All templates of pods of all releases."""
    return itertools.chain.from_iterable(release.pods() for release in releases())


def containers(pod: Object) -> list[Object]:
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


def deployment(service: str, values: Any = NEEDED) -> Object:
    return render(values).one("Deployment", f"b2b-{service}")


def main_container(service: str, values: Any = NEEDED) -> Object:
    (found,) = deployment(service, values)["spec"]["template"]["spec"]["containers"]
    return dict(found)


def test_there_are_pods_of_every_kind_to_look_at() -> None:
    assert {where.split()[0] for where, _ in every_pod()} == {"Deployment", "Job", "CronJob", "Pod"}


def test_every_pod_is_allowed_in_a_namespace_that_enforces_restricted() -> None:
    """The rules of the Pod Security Standards, one by one."""
    for where, pod in every_pod():
        spec = pod["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & set(spec), where
        kinds = {kind for volume in spec.get("volumes", ()) for kind in set(volume) - {"name"}}
        assert kinds <= VOLUMES, where
        own = spec["securityContext"]
        assert own["runAsNonRoot"] is True, where
        assert own["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert not {"sysctls", "windowsOptions", "seLinuxOptions"} & set(own), where
        for container in containers(pod):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, where
            assert context["capabilities"] == {"drop": ["ALL"]}, where
            assert not {"privileged", "procMount", "runAsUser", "runAsNonRoot"} & set(context), where
            assert not any("hostPort" in port for port in container.get("ports", ())), where


def test_every_pod_runs_as_the_user_of_the_image_by_its_number() -> None:
    for where, pod in every_pod():
        assert pod["spec"]["securityContext"]["runAsUser"] == UID, where
        assert pod["spec"]["securityContext"]["runAsGroup"] == UID, where
        assert pod["spec"]["securityContext"]["fsGroup"] == UID, where


def test_no_pod_can_write_to_its_image_unless_it_is_told_so() -> None:
    for name, values in EXAMPLES.items():
        for where, pod in render(values).pods():
            for container in containers(pod):
                read_only = container["securityContext"]["readOnlyRootFilesystem"]
                assert read_only is (name != "otherwise"), where


def test_pods_write_where_something_else_is_mounted() -> None:
    for where, pod in every_pod():
        volumes = {volume["name"]: set(volume) for volume in pod["spec"].get("volumes", ())}
        for container in containers(pod):
            for mount in container.get("volumeMounts", ()):
                writable = {"emptyDir", "persistentVolumeClaim"} & volumes[mount["name"]]
                assert writable or mount["readOnly"] is True, where


def test_no_pod_has_a_token_of_the_cluster_or_the_addresses_of_its_neighbours() -> None:
    for release in releases():
        assert all(one["automountServiceAccountToken"] is False for one in release.all("ServiceAccount"))
        for where, pod in release.pods():
            assert pod["spec"]["automountServiceAccountToken"] is False, where
            # A Service called `db` would set DB_PORT to tcp://….
            assert pod["spec"]["enableServiceLinks"] is False, where
            account = pod["spec"].get("serviceAccountName", "default")
            assert account in {"default", "shared", *release.names("ServiceAccount")}, where


def test_every_container_says_what_it_needs_and_no_cpu_limit_throttles_it() -> None:
    for where, pod in every_pod():
        for container in containers(pod):
            resources = container["resources"]
            assert set(resources["requests"]) == {"cpu", "memory", "ephemeral-storage"}, where
            assert set(resources["limits"]) == {"memory", "ephemeral-storage"}, where


@pytest.mark.parametrize("service", SERVICES)
def test_the_service_is_all_that_differs_in_how_it_is_started(service: str) -> None:
    container = main_container(service)

    assert "command" not in container  # the image's: python -m
    assert container["args"] == [service, "serve"]
    assert container["image"] == main_container("customers")["image"]


def test_every_pod_of_a_release_runs_the_same_image() -> None:
    for release in releases():
        assert len({one["image"] for _, pod in release.pods() for one in containers(pod)}) == 1


def test_an_image_has_a_version_or_a_digest_and_never_the_latest() -> None:
    tagged = merged(NEEDED, {"global": {"image": {"tag": "1.2.3"}}})

    assert main_container("orders")["image"] == "b2b-orders:0.1.0"
    assert main_container("orders", tagged)["image"] == "b2b-orders:1.2.3"
    digest = OF_OPERATORS["global"]["image"]["digest"]
    assert main_container("orders", OF_OPERATORS)["image"] == f"registry.example/team/b2b-orders@{digest}"
    assert "global.image.tag" in refusal(merged(NEEDED, {"global": {"image": {"tag": "latest"}}}))


def test_images_of_a_private_registry_can_be_pulled_by_every_pod() -> None:
    for where, pod in render(OF_OPERATORS).pods():
        assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}], where
        assert {one["imagePullPolicy"] for one in containers(pod)} == {"Always"}, where


@pytest.mark.parametrize("service", SERVICES)
def test_probes_ask_the_admin_port_for_what_it_answers(service: str) -> None:
    container = main_container(service)
    admin = create_app(Settings(database_url="sqlite:///unused.db"))[ADMIN]
    answered = {route.resource.canonical for route in admin.router.routes() if route.resource is not None}

    asked = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}

    assert asked == {
        "startup": {"path": "/startupz", "port": "admin"},
        "liveness": {"path": "/livez", "port": "admin"},
        "readiness": {"path": "/readyz", "port": "admin"},
    }
    assert {probe["path"] for probe in asked.values()} <= answered


@pytest.mark.parametrize("service", SERVICES)
def test_a_database_that_is_slow_does_not_fail_the_probe_before_the_service_answers_it(service: str) -> None:
    assert main_container(service)["readinessProbe"]["timeoutSeconds"] > CHECK_TIMEOUT_SECONDS


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("example", EXAMPLES)
def test_a_pod_that_ends_has_the_time_to_finish_what_it_does(service: str, example: str) -> None:
    pod = deployment(service, EXAMPLES[example])["spec"]["template"]["spec"]
    config = render(EXAMPLES[example]).one("ConfigMap", f"b2b-{service}")["data"]
    pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]

    # The parts of the end of a process, see chassis/process.py.
    parts = [float(config[name]) for name in ("DRAIN_SECONDS", "SHUTDOWN_TIMEOUT", "DB_TIMEOUT")]

    assert pause >= 5
    assert pause + sum(parts) + GIVE_BACK_SECONDS + LAST_SECONDS < pod["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("service", SERVICES)
def test_a_release_takes_no_pod_away_before_its_successor_is_ready(service: str) -> None:
    strategy = deployment(service)["spec"]["strategy"]

    assert strategy["type"] == "RollingUpdate"
    assert strategy["rollingUpdate"]["maxUnavailable"] == 0
    assert strategy["rollingUpdate"]["maxSurge"] == 1


@pytest.mark.parametrize("service", SERVICES)
def test_pods_of_one_release_are_spread_over_nodes_and_zones(service: str) -> None:
    template = deployment(service)["spec"]["template"]
    spread = template["spec"]["topologySpreadConstraints"]

    assert {one["topologyKey"] for one in spread} == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
    for one in spread:
        assert one["maxSkew"] == 1
        assert one["matchLabelKeys"] == ["pod-template-hash"]
        assert selects(one["labelSelector"], template["metadata"]["labels"])


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_leads_to_the_pods_that_serve_it_and_to_no_other(service: str) -> None:
    for name, values in EXAMPLES.items():
        release = render(values)
        selector = {"matchLabels": release.one("Service", f"b2b-{service}")["spec"]["selector"]}

        found = [where for where, pod in release.pods() if selects(selector, pod["metadata"]["labels"])]

        assert found == [f"Deployment b2b-{service}"], name


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_the_ports_that_the_process_listens_on(service: str) -> None:
    settings = {"customers": (3001, 9001), "orders": (3002, 9002), "orchestrator": (3010, 9010)}[service]
    release = render(NEEDED)
    ports = {port["name"]: port for port in release.one("Service", f"b2b-{service}")["spec"]["ports"]}
    container = {port["name"]: port["containerPort"] for port in main_container(service)["ports"]}
    config = release.one("ConfigMap", f"b2b-{service}")["data"]

    assert (ports["http"]["port"], ports["admin"]["port"]) == settings
    assert {name: port["targetPort"] for name, port in ports.items()} == {"http": "http", "admin": "admin"}
    assert container == {"http": int(config["PORT"]), "admin": int(config["ADMIN_PORT"])}
    assert (container["http"], container["admin"]) == settings


def test_labels_of_an_operator_do_not_replace_those_that_select() -> None:
    ours = {"app.kubernetes.io/name": "evil", "app.kubernetes.io/component": "evil", "team": "sales"}
    values = merged(NEEDED, {"orders": {"podLabels": ours}})

    labels = deployment("orders", values)["spec"]["template"]["metadata"]["labels"]

    assert selects(deployment("orders", values)["spec"]["selector"], labels)
    assert labels["team"] == "sales"


def test_what_an_operator_wants_of_pods_reaches_them() -> None:
    template = deployment("orders", OF_OPERATORS)["spec"]["template"]

    assert template["metadata"]["labels"]["team"] == "sales"
    assert template["metadata"]["annotations"]["example.com/owner"] == "sales"
    assert template["spec"]["nodeSelector"] == {"kubernetes.io/arch": "amd64"}
    assert template["spec"]["tolerations"][0]["key"] == "sales"
    assert template["spec"]["priorityClassName"] == "high"
    assert {"name": "TZ", "value": "UTC"} in template["spec"]["containers"][0]["env"]
