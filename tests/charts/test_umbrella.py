"""The umbrella chart as operators meet it: what it is installed with, what it says, how it is packed."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.kubernetes import program
from dev.stack import PORTS, ROOT
from tests.charts.examples import NEEDED, OF_OPERATORS, OTHERWISE
from tests.charts.notes import first_order, notes
from tests.charts.prometheus import program as of_prometheus
from tests.charts.rendering import SERVICE, SERVICES, UMBRELLA, Release, helm, merged, render

BOARDS = sorted((UMBRELLA / "dashboards").glob("*.json"))


def commands(chart: Path, begin: str) -> list[str]:
    """The commands of a chart's README that begin so."""
    text = (chart / "README.md").read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return re.findall(rf"^{begin} (?:.*\\\n)*.*$", "\n".join(blocks), re.MULTILINE)


def run(command: str, folder: Path) -> str:
    """What a command of a README prints."""
    done = subprocess.run(  # noqa: S603 - a command of ours
        ("/bin/sh", "-c", command),
        cwd=ROOT,
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def keys_read(release: Release, secret: str) -> set[str]:
    """The keys of a Secret that the pods of a release need."""
    text = json.dumps([template for _, template in release.pods()])
    by_variables = re.findall(rf'"secretKeyRef": {{"name": "{secret}", "key": "(\w+)"}}', text)
    volumes = [volume for _, template in release.pods() for volume in template["spec"].get("volumes", ())]
    mounted = [volume["secret"] for volume in volumes if volume.get("secret", {}).get("secretName") == secret]
    return {*by_variables, *(item["key"] for one in mounted for item in one["items"])}


def test_the_secret_of_the_readme_is_all_that_an_install_needs(tmp_path: Path) -> None:
    [command] = commands(UMBRELLA, "kubectl create secret")

    made = json.loads(
        run(command.replace("kubectl", program("kubectl")) + " --dry-run=client -o json", tmp_path)
    )

    release = render(NEEDED)
    assert made["metadata"] == {"name": "b2b-orders", "namespace": "b2b-orders"}
    assert set(made["data"]) == keys_read(release, "b2b-orders") == {"DATABASE_URL", "SERVICE_TOKEN"}
    text = json.dumps([template for _, template in release.pods()])
    assert set(re.findall(r'"secretName": "([^"]+)"', text)) == {"b2b-orders"}


@pytest.mark.parametrize("chart", [UMBRELLA, SERVICE], ids=lambda chart: chart.name)
def test_the_install_of_the_readme_works_and_says_nothing_but_its_notes(chart: Path, tmp_path: Path) -> None:
    [command] = commands(chart, "helm install")

    said = run(command.replace("helm", program("helm"), 1) + " --dry-run=client", tmp_path)

    assert 'image: "registry.example.com/b2b-orders:' in said
    assert "\nNOTES:\n" in said


def test_charts_are_packed_with_all_that_they_need(tmp_path: Path) -> None:
    for chart in (UMBRELLA, SERVICE.parent / SERVICE.name):
        packed = helm("package", str(chart), f"--destination={tmp_path}")
        assert packed.returncode == 0
        assert not packed.stderr

    assert render(OF_OPERATORS, chart=tmp_path / "b2b-orders-0.1.0.tgz") == render(OF_OPERATORS)
    alone = SERVICE / "values-orders.yaml"
    assert render(NEEDED, chart=tmp_path / "service-0.1.0.tgz", files=[alone]) == render(
        NEEDED, chart=SERVICE, files=[alone]
    )


def test_the_notes_forward_the_ports_that_they_call() -> None:
    said = notes(NEEDED)

    forwarded = re.findall(r"kubectl -n b2b-orders port-forward svc/b2b-(\w+) (\d+)", said)
    assert [(name, int(port)) for name, port in forwarded] == [(name, PORTS[name][0]) for name in SERVICES]
    called = [re.findall(r"http://localhost:(\d+)/", call) for call in first_order()]
    assert called == [[port] for _, port in forwarded]


def test_the_notes_wait_as_long_as_a_start_may_take_and_name_the_folder_that_grafana_has() -> None:
    said = notes(NEEDED)

    pod = render(NEEDED).one("Deployment", "b2b-orders")["spec"]["template"]["spec"]
    startup = pod["containers"][0]["startupProbe"]
    [minutes] = re.findall(r"wait --for=condition=Available --timeout=(\d+)m deploy ", said)
    assert int(minutes) * 60 > startup["periodSeconds"] * startup["failureThreshold"]
    boards = yaml.safe_load((ROOT / "k8s" / "infra" / "grafana" / "boards.yaml").read_text())
    assert f"folder {boards['providers'][0]['folder']}\n" in said


@pytest.mark.parametrize(
    ("values", "url"),
    [(OF_OPERATORS, "https://orders.example.com"), (OTHERWISE, "https://orders.example.com")],
)
def test_the_notes_name_the_address_from_outside(values: dict[str, Any], url: str) -> None:
    said = notes(values)

    assert f"The API is at {url}" in said
    assert len(re.findall(rf"curl -s {url}/", said)) == 3
    assert ("Authorization: Bearer $TOKEN" in said) == (values["global"]["config"]["AUTH"] == "jwt")
    assert "localhost:30" not in said.partition("With Jaeger")[0]
    assert "svc/jaeger 16686" in said
    assert "svc/grafana 3000" in said


@pytest.mark.parametrize(
    "base", ["", "https://git.example.com/b2b-orders/blob/main", "https://git.example.com/x/"]
)
def test_prometheus_gets_all_rules_and_alerts_say_where_their_runbook_is(base: str, tmp_path: Path) -> None:
    values = {
        "prometheusRule": {"enabled": True, "runbookBaseUrl": base, "labels": {"release": "prometheus"}}
    }
    written = [
        rule
        for file in sorted((UMBRELLA / "rules").glob("*.yaml"))
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    ]

    [made] = render(merged(NEEDED, values)).all("PrometheusRule")

    assert made["metadata"]["labels"]["release"] == "prometheus"
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(made["spec"]))
    done = subprocess.run(  # noqa: S603 - a program of Prometheus
        (of_prometheus("promtool"), "check", "rules", "--lint-fatal", str(tmp_path / "rules.yaml")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rules = [rule for group in made["spec"]["groups"] for rule in group["rules"]]
    assert len(rules) == len(written)
    for rule, origin in zip(rules, written, strict=True):
        if base and "alert" in rule:
            path = origin["annotations"].pop("runbook")
            assert rule["annotations"].pop("runbook_url") == f"{base.rstrip('/')}/{path}"
        assert rule == origin


def test_grafanas_sidecar_finds_every_board_as_it_is() -> None:
    made = render(merged(NEEDED, {"dashboards": {"enabled": True, "annotations": {"grafana_folder": "B2B"}}}))
    boards = [one for one in made.all("ConfigMap") if "grafana_dashboard" in one["metadata"]["labels"]]

    assert len(boards) == len(BOARDS) == 3
    for file, one in zip(BOARDS, boards, strict=True):
        assert one["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert one["metadata"]["annotations"] == {"grafana_folder": "B2B"}
        assert list(one["data"]) == [file.name]
        assert json.loads(one["data"][file.name]) == json.loads(file.read_text())


def test_a_service_that_is_left_out_is_not_tested_routed_or_counted() -> None:
    values = merged(NEEDED, {"orders": {"enabled": False}, "ingress": {"enabled": True, "host": "a.example"}})

    release = render(merged(values, {"global": {"config": {"AUTH": "off"}}}))

    assert release.names("Deployment") == {"b2b-customers", "b2b-orchestrator"}
    assert release.all("Pod") == []
    assert "b2b-smoke-test" not in release.names("NetworkPolicy")
    assert "b2b-orders" not in json.dumps(release.one("Ingress", "b2b")["spec"])
