"""Every name, path, port and value in the files of skaffold is one that is there."""

import json
import re
import shlex
from fnmatch import fnmatch
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from dev.stack import PORTS, ROOT
from tests.charts.rendering import SERVICES, UMBRELLA, Release
from tests.k8s.manifests import K8S, VALUES, built, named, release
from tests.k8s.skaffold import Config, HelmRelease, read
from tests.k8s.test_manifests import SMOKE_TEST, port_of

FILE = ROOT / "skaffold.yaml"
INFRA = K8S / "skaffold.yaml"
PROFILES = ("dev", "debug", "demo", "ci")
DOCKERFILE = (ROOT / "Dockerfile").read_text()
IMAGES = {"IMAGE_REPO_b2b_orders": "registry.example/b2b-orders", "IMAGE_TAG_b2b_orders": "a1b2c3"}
"""What skaffold knows in templates: for each artifact, with an underscore for what no variable can have."""


def helm_release(config: Config) -> HelmRelease:
    assert config.deploy.helm
    (found,) = config.deploy.helm.releases
    return found


def installed(config: Config) -> Release:
    """The release as skaffold has helm install it."""
    given, values = helm_release(config), dict[str, Any]()
    templates = {
        path: re.sub(r"{{\.(\w+)}}", lambda found: IMAGES[found[1]], template)
        for path, template in given.set_value_templates.items()
    }
    for path, value in {**templates, **given.set_values}.items():
        *way, last = path.split(".")
        place = values
        for step in way:
            place = place.setdefault(step, {})
        place[last] = value
    return release(values)


@pytest.mark.parametrize("profile", [None, *PROFILES])
def test_skaffold_takes_the_file_with_each_profile(profile: str | None) -> None:
    assert read(FILE, profile).metadata.name == "b2b-orders"


def test_the_profiles_are_those_that_the_file_speaks_of() -> None:
    config = read(FILE)

    assert [profile.name for profile in config.profiles] == list(PROFILES)
    assert {one.name: one.activation[0].command for one in config.profiles if one.activation} == {
        "dev": "dev",
        "debug": "debug",
    }


@pytest.mark.parametrize(
    "path",
    ["buildd", "build.artifacts.0.imagee", "deploy.helm.releases.0.valueFiles", "portForward.0.localport"],
)
def test_a_key_that_skaffold_does_not_know_is_noticed(path: str) -> None:
    content = yaml.safe_load(FILE.read_text())
    place, (*way, last) = content, path.split(".")
    for step in way:
        place = place[int(step)] if isinstance(place, list) else place[step]
    place[last] = "x"

    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Config.model_validate(content)


def test_what_is_not_ours_is_deployed_first() -> None:
    (required,) = read(FILE).requires
    infra = read(ROOT / required.path)

    assert ROOT / required.path == INFRA
    assert infra.manifests
    assert [(K8S / path).resolve() for path in infra.manifests.kustomize.paths] == [K8S]
    assert infra.deploy.kubectl is not None


# --- the image ----------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", [None, *PROFILES])
def test_the_artifact_is_a_stage_of_the_dockerfile(profile: str | None) -> None:
    build = read(FILE, profile).build
    assert build
    (artifact,) = build.artifacts

    assert (ROOT / artifact.context / artifact.docker.dockerfile).read_text() == DOCKERFILE
    assert re.search(rf"^FROM .* AS {artifact.docker.target}$", DOCKERFILE, flags=re.MULTILINE)
    assert artifact.docker.target == ("dev" if profile == "dev" else "run")
    assert (
        artifact.image
        == yaml.safe_load((UMBRELLA / "values.yaml").read_text())["global"]["image"]["repository"]
    )


def test_without_a_profile_the_last_stage_is_built_as_by_docker_itself() -> None:
    stages = re.findall(r"^FROM .* AS (\w+)$", DOCKERFILE, flags=re.MULTILINE)

    assert stages[-1] == "run"


def test_skaffold_sets_the_image_of_every_container_of_ours() -> None:
    containers = [one for _, pod in installed(read(FILE)).pods() for one in pod["spec"]["containers"]]

    assert {one["image"] for one in containers} == {"registry.example/b2b-orders:a1b2c3"}


# --- the release --------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", [None, *PROFILES])
def test_the_chart_takes_what_skaffold_gives_it(profile: str | None) -> None:
    config = read(FILE, profile)
    given = helm_release(config)

    assert (given.name, given.namespace) == ("b2b", "b2b-orders")
    assert ROOT / given.chart_path == UMBRELLA
    assert [ROOT / file for file in given.values_files] == [VALUES]
    assert named("Namespace", given.namespace)
    contexts = [
        one["spec"]["template"]["spec"]["containers"][0]["securityContext"]
        for one in installed(config).all("Deployment")
    ]
    assert {one["readOnlyRootFilesystem"] for one in contexts} == {profile != "dev"}


def test_the_release_finds_its_secret_and_the_keys_in_it() -> None:
    text = json.dumps(release().objects, sort_keys=True)
    used = re.findall(r'"secretKeyRef": \{"key": "(\w+)", "name": "([\w-]+)"\}', text)
    used += [("SERVICE_TOKEN", name) for name in re.findall(r'"secretName": "([\w-]+)"', text)]

    assert {name for _, name in used} == {"b2b-orders-development"}
    secret = named("Secret", "b2b-orders-development")
    assert secret["metadata"]["namespace"] == "b2b-orders"
    assert {key for key, _ in used} == set(secret["data"])


def test_every_service_is_forwarded_to_its_own_port() -> None:
    forwarded = {
        (one.namespace, one.resource_name): (one.port, one.local_port)
        for file in (FILE, INFRA)
        for one in read(file).port_forward
    }

    for service in SERVICES:
        ports = {
            port["name"]: port["port"] for port in release().one("Service", f"b2b-{service}")["spec"]["ports"]
        }
        assert forwarded.pop(("b2b-orders", f"b2b-{service}")) == (ports["http"], PORTS[service][0])
    assert {name for _, name in forwarded} == {"grafana", "jaeger", "prometheus"}
    for (namespace, name), (port, local_port) in forwarded.items():
        service_object = named("Service", name)
        assert service_object["metadata"]["namespace"] == namespace
        assert port_of(service_object, port) == port == local_port
    assert {one.resource_type for file in (FILE, INFRA) for one in read(file).port_forward} == {"service"}


# --- profiles -----------------------------------------------------------------------------------


def test_in_development_every_source_is_synced_to_where_the_image_has_it() -> None:
    build = read(FILE, "dev").build
    assert build
    (artifact,) = build.artifacts
    assert artifact.sync
    stage = DOCKERFILE.partition(" AS dev\n")[2].partition("\nFROM ")[0]
    copied = re.findall(r"^COPY --chown=10001:10001 (\w+) (\w+)$", stage, flags=re.MULTILINE)

    assert {(rule.src, rule.dest) for rule in artifact.sync.manual} == {
        (f"{source}/**/*.py", "/app") for source, target in copied if source == target
    }
    assert {source for source, _ in copied} == {"chassis", *SERVICES}
    assert "WORKDIR /app" in DOCKERFILE
    assert fnmatch("orders/migrations/versions/0001_orders.py", "orders/**/*.py")


def test_a_debugger_is_let_in_by_a_namespace_that_asks_for_less() -> None:
    helm = read(FILE, "debug").deploy.helm
    assert helm
    assert helm.hooks
    (hook,) = helm.hooks.before
    shell, flag, script = hook.host.command
    words = shlex.split(script)

    assert (shell, flag) == ("sh", "-c")
    assert words[-2:] == ["b2b-orders", "pod-security.kubernetes.io/enforce=baseline"]
    assert words[-2] == named("Namespace", "b2b-orders")["metadata"]["name"]
    assert words[-1].partition("=")[0] in named("Namespace", "b2b-orders")["metadata"]["labels"]


def test_the_demo_makes_its_sample_data_in_the_namespace_of_the_release() -> None:
    demo = read(FILE, "demo")
    assert demo.manifests
    (path,) = demo.manifests.kustomize.paths

    assert {one["metadata"]["namespace"] for one in built(ROOT / path)} == {"b2b-orders"}
    assert demo.deploy.kubectl
    assert demo.deploy.helm


def test_verify_runs_the_smoke_test_as_helm_does() -> None:
    (verify,) = read(FILE, "ci").verify
    pod = release().one("Pod", "b2b-smoke-test")
    (ours,) = pod["spec"]["containers"]
    job = yaml.safe_load((ROOT / verify.execution_mode.kubernetes_cluster.job_manifest_path).read_text())
    template = job["spec"]["template"]
    (container,) = template["spec"]["containers"]

    assert job == SMOKE_TEST
    assert (verify.container.name, verify.container.image) == (container["name"], "b2b-orders")
    assert verify.container.args == ours["args"]
    assert [one.model_dump() for one in verify.container.env] == ours["env"]
    assert job["metadata"]["namespace"] == "b2b-orders"
    assert template["metadata"]["labels"] == pod["metadata"]["labels"]
    assert verify.timeout == job["spec"]["activeDeadlineSeconds"] == pod["spec"]["activeDeadlineSeconds"]
