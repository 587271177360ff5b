"""What operators look at: each behind its switch, found by who collects it, and the same as in the files."""

import json
import re
from typing import Any

import pytest
import yaml

from dev.stack import ROOT
from tests.charts.examples import NEEDED, OF_OPERATORS, OTHERWISE
from tests.charts.policies import selects
from tests.charts.rendering import SERVICES, UMBRELLA, merged, render

BOARDS = sorted((UMBRELLA / "dashboards").glob("*.json"))
FILES = sorted((UMBRELLA / "rules").glob("*.yaml"))
SERIES = {
    "job_name": [("Job", "-migrate")],
    "cronjob": [("CronJob", "")],
    "horizontalpodautoscaler": [("HorizontalPodAutoscaler", "")],
}
"""Labels of kube-state-metrics that alerts choose by, and the objects that they have to know."""


def groups(values: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = render(values).one("PrometheusRule", "b2b")["spec"]["groups"]
    return found


def in_files() -> list[dict[str, Any]]:
    return [group for file in FILES for group in yaml.safe_load(file.read_text())["groups"]]


def test_nothing_of_it_is_there_unless_it_is_wanted() -> None:
    release = render(NEEDED)

    assert not {"ServiceMonitor", "PrometheusRule"} & {one["kind"] for one in release.objects}
    assert release.names("ConfigMap") == {f"b2b-{service}" for service in SERVICES}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_monitor_finds_the_admin_port_of_its_service_and_names_the_job_after_it(
    service: str,
) -> None:
    release = render(OF_OPERATORS)
    monitor = release.one("ServiceMonitor", f"b2b-{service}")
    (endpoint,) = monitor["spec"]["endpoints"]

    found = [
        one
        for one in release.all("Service")
        if selects(monitor["spec"]["selector"], one["metadata"]["labels"])
    ]

    assert [one["metadata"]["name"] for one in found] == [f"b2b-{service}"]
    assert endpoint["path"] == "/metrics"
    assert endpoint["port"] in {
        port["name"] for port in found[0]["spec"]["ports"] if port["targetPort"] == "admin"
    }
    # Rules and boards say job="orders".
    assert found[0]["metadata"]["labels"][monitor["spec"]["jobLabel"]] == service
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


def test_rules_are_those_of_the_files_with_the_address_of_each_runbook() -> None:
    base = "https://git.example.com/b2b-orders/blob/main/"
    found = json.dumps(groups(OF_OPERATORS))

    assert "{{ $labels" in found  # left for Prometheus
    for url in re.findall(r'"runbook_url": "([^"]+)"', found):
        assert url.startswith(base)
        assert (ROOT / url.removeprefix(base)).is_file()
    assert json.loads(found.replace(f'"runbook_url": "{base}', '"runbook": "')) == in_files()
    assert len(re.findall("runbook_url", found)) == len(re.findall('"alert"', found)) > 10


def test_rules_without_the_address_of_runbooks_have_their_paths() -> None:
    values = merged(NEEDED, {"prometheusRule": {"enabled": True}})

    assert groups(values) == in_files()


@pytest.mark.parametrize("label", SERIES)
def test_alerts_about_jobs_know_them_by_the_names_that_the_charts_give_them(label: str) -> None:
    patterns = re.findall(rf'\b{label}=~"([^"]+)"', json.dumps(in_files()).replace('\\"', '"'))
    release = render(NEEDED)

    assert patterns
    for kind, suffix in SERIES[label]:
        names = [name for name in release.names(kind) if name.endswith(suffix)]
        assert names
        for name in names:
            assert any(re.fullmatch(pattern, name) for pattern in patterns), name


def test_boards_are_those_of_the_files_with_the_label_that_grafana_collects_by() -> None:
    release = render(OF_OPERATORS)
    boards = [one for one in release.all("ConfigMap") if "grafana_dashboard" in one["metadata"]["labels"]]

    assert len(boards) == len(BOARDS) == 3
    for board in boards:
        ((name, text),) = board["data"].items()
        assert text == (UMBRELLA / "dashboards" / name).read_text().strip()
        assert json.loads(text)["uid"] == name.removesuffix(".json")
        assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert board["metadata"]["labels"]["team"] == "sales"
        assert board["metadata"]["annotations"] == {"grafana_folder": "B2B"}
        assert len(text.encode()) < 1_000_000  # what etcd takes


def test_traces_go_where_they_are_told_with_the_pod_they_come_from() -> None:
    release = render(OF_OPERATORS)

    for service in SERVICES:
        assert (
            release.one("ConfigMap", f"b2b-{service}")["data"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
            == (OF_OPERATORS["global"]["config"]["OTEL_EXPORTER_OTLP_ENDPOINT"])
        )
    for where, pod in release.pods():
        for container in pod["spec"]["containers"]:
            env = {variable["name"]: number for number, variable in enumerate(container["env"])}
            if (at := env.get("OTEL_RESOURCE_ATTRIBUTES")) is None:
                assert where == "Pod b2b-smoke-test"
                continue
            # Kubernetes fills in only what stands before.
            for named in re.findall(r"\$\((\w+)\)", container["env"][at]["value"]):
                assert env[named] < at, where


def test_without_a_collector_nothing_is_exported() -> None:
    for values in (NEEDED, OTHERWISE):
        for service in SERVICES:
            data = render(values).one("ConfigMap", f"b2b-{service}")["data"]
            assert not [name for name in data if name.startswith("OTEL_EXPORTER")]


def test_the_smoke_test_of_a_release_calls_its_own_services() -> None:
    release = render(NEEDED)
    pod = release.one("Pod", "b2b-smoke-test")
    (container,) = pod["spec"]["containers"]
    addresses = {variable["name"]: variable["value"] for variable in container["env"]}

    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert container["args"] == ["orchestrator", "smoke"]
    for name, service in (("CUSTOMERS", "customers"), ("ORDERS", "orders"), ("ORCHESTRATOR", "orchestrator")):
        ports = release.one("Service", f"b2b-{service}")["spec"]["ports"]
        (port,) = (one["port"] for one in ports if one["name"] == "http")
        assert addresses[f"{name}_API_BASE"] == f"http://b2b-{service}:{port}"
