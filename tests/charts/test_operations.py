"""Every command of docs/operations.md: its program knows the options, the chart has the objects and values.

helm renders what it would apply; kubectl, which needs a cluster, is asked for its help.
"""

import json
import re
import subprocess
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import orchestrator.__main__
import orders.__main__
from dev import alerts
from dev.kubernetes import program
from tests.charts.rendering import pod_template
from tests.databases import ROOT
from tests.e2e.operations import DOCUMENT, commands, path_of, section

COMMANDS = commands(DOCUMENT.read_text())
KINDS = {"deploy": "deployment"}
MADE_BY_HAND = {
    ("namespace", "b2b-orders"),
    ("secret", "b2b-orders"),
    ("configmap", "orders-file"),
    ("job", "reconcile-now"),
}
"""What the document's own kubectl commands make."""
CLIS = {"orders": orders.__main__.cli, "orchestrator": orchestrator.__main__.cli}
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _of(name: str) -> list[list[str]]:
    """The words of the commands of this program, without what is run in a pod."""
    found = [words[1:] for words in COMMANDS if words[0] == name]
    return [words[: words.index("--")] if "--" in words else words for words in found]


def _in_pods() -> list[list[str]]:
    return [words[words.index("--") + 1 :] for words in COMMANDS if words[0] == "kubectl" and "--" in words]


def _told(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - the document's own


@cache
def _template(*values: str) -> list[dict[str, Any]]:
    """What the chart is with these options."""
    command = ("template", "b2b", "charts/b2b-orders", "--namespace=b2b-orders")
    done = _told(program("helm"), *command, *values)
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.load_all(done.stdout, Loader=_LOADER) if found]


def _values(words: list[str]) -> list[str]:
    """The options of a helm command that set values, and the one without which nothing renders."""
    given = [f"{option}={value}" for option, value in pairwise(words) if option.startswith("--set")]
    return ["--set=global.db.existingSecret=b2b-orders", *given]


def _applied() -> list[list[str]]:
    return [words for words in _of("helm") if words[0] in {"install", "upgrade"}]


def test_every_helm_command_renders_what_it_would_apply() -> None:
    assert len(_applied()) >= 5

    for words in _applied():
        assert words[1:3] == ["b2b", "charts/b2b-orders"]
        assert len(_template(*_values(words))) > 20, words
        done = _told(program("helm"), "lint", "--strict", "charts/b2b-orders", *_values(words))
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["helm", "kubectl"])
def test_every_option_is_one_of_its_command(name: Any) -> None:
    helps: dict[tuple[str, ...], str] = {}
    everywhere = _told(program(name), "options").stdout if name == "kubectl" else ""
    for words in _of(name):
        deep = {"create": 3 if words[1] == "secret" else 2, "rollout": 2, "config": 2}.get(words[0], 1)
        path = tuple(words[:deep])
        if path not in helps:
            done = _told(program(name), *path, "--help")
            assert done.returncode == 0, words
            helps[path] = done.stdout + everywhere
        for option in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert re.search(rf"{option}\b", helps[path]), f"{name} {' '.join(path)} has no {option}"


def test_every_object_is_one_that_the_chart_renders() -> None:
    rendered = [each for words in _applied() for each in _template(*_values(words))]
    there = {(each["kind"].lower(), each["metadata"]["name"]) for each in rendered} | MADE_BY_HAND
    named = {(words[1], words[2]) for words in _of("kubectl") if words[0] == "patch"}
    for word in (word.removeprefix("--from=") for words in _of("kubectl") for word in words):
        if re.fullmatch(r"[a-z]+/[a-z0-9-]+", word):
            kind, _, name = word.partition("/")
            named.add((KINDS.get(kind, kind), name))
    assert len(named) >= 7

    assert named <= there


def test_every_command_in_a_pod_is_one_of_the_service() -> None:
    ours = [words for words in _in_pods() if words[0] == "python"]
    assert len(ours) >= 4

    for _, module, service, name, *options in ours:
        assert module == "-m"
        command = typer.main.get_command(CLIS[service]).commands[name]  # type: ignore[attr-defined]  # it is a group
        known = {option for parameter in command.params for option in parameter.opts}
        assert {option for option in options if option.startswith("--")} <= known


def test_a_pod_has_the_token_where_the_document_looks_for_it() -> None:
    ((_, path),) = [words for words in _in_pods() if words[0] == "cat"]
    deployment = next(each for each in _template(*_values([])) if each["kind"] == "Deployment")
    spec = deployment["spec"]["template"]["spec"]

    mounts = spec["containers"][0]["volumeMounts"]
    (mount,) = [each for each in mounts if path.startswith(each["mountPath"] + "/")]
    (volume,) = [each for each in spec["volumes"] if each["name"] == mount["name"]]
    assert [each["path"] for each in volume["secret"]["items"]] == [Path(path).name]
    assert volume["secret"]["secretName"] == "b2b-orders"


def test_patches_are_json_and_secrets_have_the_keys_that_the_chart_reads() -> None:
    given = [words[words.index("--patch") + 1] for words in _of("kubectl") if words[0] == "patch"]
    keys = {key for patch in given for key in json.loads(patch).get("stringData", {})}
    rendered = json.dumps(_template(*_values([])))

    assert keys == {"DATABASE_URL", "SERVICE_TOKEN"}
    for key in keys:
        assert f'"key": "{key}"' in rendered


def test_the_selector_finds_the_pods_that_serve_and_no_others() -> None:
    options = {word.partition("=") for words in _of("kubectl") for word in words}
    (selector,) = {value for option, _, value in options if option == "--selector"}
    wanted = dict(label.split("=") for label in selector.split(","))

    found = [
        f"{each['kind']} {each['metadata']['name']}"
        for each in _template(*_values([]))
        if (template := pod_template(each)) is not None
        and wanted.items() <= template["metadata"]["labels"].items()
    ]

    assert sorted(found) == [f"Deployment b2b-{name}" for name in ("customers", "orchestrator", "orders")]


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!http|#)([^)]+)\)", DOCUMENT.read_text())

    assert len(links) >= 10
    assert [link for link in links if not path_of(link).exists()] == []


def test_every_alert_is_there_and_every_runbook_belongs_to_one() -> None:
    text = section("Alerts")
    named = set(re.findall(r"^\| (\w+) \| (?:page|ticket) ", text, flags=re.MULTILINE))
    linked = set(re.findall(r"\]\(runbooks/([a-z-]+)\.md\)", text))

    assert named == {rule["alert"] for rule in alerts.rules()}
    assert linked == {file.stem for file in (ROOT / "docs" / "runbooks").glob("*.md")}
