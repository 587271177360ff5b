"""What `kubectl apply -k` would send to a cluster, by the real kubectl."""

import base64
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from dev.kubernetes import program
from dev.stack import ROOT
from tests.charts.rendering import Release, render

K8S = ROOT / "k8s"
VALUES = K8S / "values.yaml"
Object = dict[str, Any]


def release(values: Mapping[str, Any] | None = None) -> Release:
    """The release as values.yaml installs it, with these values over them."""
    return render(values, files=(VALUES,))


@cache
def built(folder: Path = K8S) -> tuple[Object, ...]:
    """The objects of a kustomization."""
    done = subprocess.run(  # noqa: S603 - our own program
        (program("kubectl"), "kustomize", str(folder)), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def named(kind: str, name: str, folder: Path = K8S) -> Object:
    """The object of this kind whose name is this, or begins with it where the rest is a hash."""
    (found,) = (
        one
        for one in built(folder)
        if one["kind"] == kind and one["metadata"]["name"].removesuffix(_hash(one)) == name
    )
    return found


def _hash(one: Object) -> str:
    name, _, last = one["metadata"]["name"].rpartition("-")
    return f"-{last}" if name and one["kind"] in ("ConfigMap", "Secret") and len(last) == 10 else ""


def pod_templates(folder: Path = K8S) -> Iterator[tuple[str, Object]]:
    """Every template of a pod, and what it is in."""
    for one in built(folder):
        if "template" in one.get("spec", {}):
            yield f"{one['kind']} {one['metadata']['name']}", one["spec"]["template"]


def write_files(config_map: Object, folder: Path) -> None:
    """Write the files of a ConfigMap where a pod would have them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in config_map["data"].items():
        (folder / name).write_text(content)


def secret(name: str) -> dict[str, str]:
    """The values of a Secret."""
    return {key: base64.b64decode(value).decode() for key, value in named("Secret", name)["data"].items()}
