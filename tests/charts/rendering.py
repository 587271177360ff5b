"""The charts, rendered by the real helm; the same values are rendered once in a process."""

import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from dev.kubernetes import program
from dev.stack import ROOT

CHARTS = ROOT / "charts"
UMBRELLA, SERVICE = CHARTS / "b2b-orders", CHARTS / "service"
SERVICES = ("customers", "orders", "orchestrator")
NAME, NAMESPACE = "b2b", "b2b-orders"
Values = Mapping[str, Any]
Object = dict[str, Any]
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Release:
    """Everything that helm would send to the cluster: the objects, those of hooks and tests included."""

    name: str
    objects: tuple[Object, ...]

    def all(self, kind: str) -> list[Object]:
        """The objects of a kind."""
        return [one for one in self.objects if one["kind"] == kind]

    def one(self, kind: str, name: str) -> Object:
        """The object of this kind and name."""
        (found,) = (one for one in self.all(kind) if one["metadata"]["name"] == name)
        return found

    def names(self, kind: str) -> set[str]:
        """The names of the objects of a kind."""
        return {str(one["metadata"]["name"]) for one in self.all(kind)}

    def pods(self) -> Iterator[tuple[str, Object]]:
        """Every template of a pod, with metadata and spec, and what it is in: `Deployment b2b-orders`."""
        for one in self.objects:
            if (template := pod_template(one)) is not None:
                yield f"{one['kind']} {one['metadata']['name']}", template


def pod_template(one: Object) -> Object | None:
    """The template of a pod in an object of whatever kind."""
    if one["kind"] == "Pod":
        return one
    spec = one["spec"]["jobTemplate"]["spec"] if one["kind"] == "CronJob" else one.get("spec") or {}
    template: Object | None = spec.get("template")
    return template if template and "spec" in template else None


def merged(*values: Values) -> dict[str, Any]:
    """Values laid over one another, as `-f a -f b` does."""
    result: dict[str, Any] = {}
    for each in values:
        for name, value in each.items():
            below = result.get(name)
            if isinstance(value, Mapping) and isinstance(below, Mapping):
                result[name] = merged(below, value)
            else:
                result[name] = value
    return result


class Refused(Exception):  # noqa: N818 - what helm says
    """helm does not render these values; the text is what it says."""


def render(
    values: Values | None = None,
    *,
    chart: Path = UMBRELLA,
    files: Sequence[Path] = (),
    name: str = NAME,
    upgrade: bool = False,
) -> Release:
    """What helm makes of the chart with these files of values, and these values over them.

    Raises:
        Refused: it refuses them.

    """
    return _rendered(json.dumps(values or {}, sort_keys=True), chart, tuple(files), name, upgrade)


def refusal(values: Values, *, chart: Path = UMBRELLA, files: Sequence[Path] = (), name: str = NAME) -> str:
    """What helm says when it refuses these values."""
    try:
        render(values, chart=chart, files=files, name=name)
    except Refused as refused:
        return str(refused)
    raise AssertionError(f"helm renders {values}")


@cache
def _rendered(values: str, chart: Path, files: tuple[Path, ...], name: str, upgrade: bool) -> Release:  # noqa: FBT001 - hashable
    with tempfile.NamedTemporaryFile("w", suffix=".json") as given:
        given.write(values)
        given.flush()
        where = ("--namespace", NAMESPACE, *(("--is-upgrade",) if upgrade else ()))
        given_files = [argument for file in (*files, given.name) for argument in ("--values", str(file))]
        done = helm("template", name, str(chart), *where, *given_files)
    if done.returncode != 0:
        raise Refused(done.stderr)
    return Release(name, tuple(one for one in yaml.load_all(done.stdout, _LOADER) if one))


def helm(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run helm; it sees no settings, plugins or cluster of whoever runs the tests."""
    with tempfile.TemporaryDirectory() as home:
        return subprocess.run(  # noqa: S603 - our own program
            (program("helm"), *arguments),
            env={"HOME": home},
            capture_output=True,
            text=True,
            check=False,
        )
