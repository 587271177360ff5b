"""The commands in README.md's "On Kubernetes", as far as they can be run without a cluster."""

import re
import shlex

import pytest
import yaml

from dev.stack import ROOT
from tests.charts.rendering import UMBRELLA, helm, render
from tests.k8s.manifests import K8S, VALUES, built, named
from tests.k8s.skaffold import read

SECTION = (ROOT / "README.md").read_text().partition("## On Kubernetes\n")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"^```sh\n(.*?)^```", SECTION, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [shlex.split(line) for block in BLOCKS for line in block.splitlines()]


def of(program: str) -> list[list[str]]:
    """The commands of a program, without its name."""
    return [command[1:] for command in COMMANDS if command[0] == program]


def test_three_commands_are_enough() -> None:
    assert [command[0] for command in COMMANDS] == ["kubectl", "helm", "helm", *["skaffold"] * 3]


def test_kubectl_is_given_the_kustomization_of_k8s() -> None:
    assert of("kubectl") == [["apply", "-k", "k8s"]]
    assert built(K8S)


def test_helm_installs_into_a_namespace_that_is_there_with_values_that_are_enough() -> None:
    (install, _) = of("helm")
    verb, name, chart, *options = install
    given = dict(zip(options[::2], options[1::2], strict=True))

    assert verb == "install"
    assert ROOT / chart == UMBRELLA
    assert ROOT / given.pop("--values") == VALUES
    assert named("Namespace", given.pop("--namespace"))
    assert helm("template", name, str(ROOT / chart), "--values", str(VALUES)).returncode == 0
    assert list(given) == ["--timeout"]


def test_helm_has_a_test_to_run() -> None:
    (install, test) = of("helm")

    assert test == ["test", install[1], "--namespace", "b2b-orders", "--logs"]
    hooks = [
        one["metadata"].get("annotations", {}).get("helm.sh/hook") for one in render(files=(VALUES,)).objects
    ]
    assert hooks.count("test") == 1


def test_the_image_has_the_name_that_the_chart_looks_for() -> None:
    image = yaml.safe_load((UMBRELLA / "values.yaml").read_text())["global"]["image"]["repository"]
    version = yaml.safe_load((UMBRELLA / "Chart.yaml").read_text())["appVersion"]

    assert f"`docker build --tag {image}:{version} .`" in SECTION


@pytest.mark.parametrize("command", of("skaffold"), ids=" ".join)
def test_skaffold_is_given_profiles_that_are_there(command: list[str]) -> None:
    profiles = [*command[2:], *(one for one in command[:1] if one in ("dev", "debug"))]

    assert profiles
    for profile in profiles:
        read(ROOT / "skaffold.yaml", profile)
