"""The rules of Prometheus, by its own tool: each alert fires when it should, and only then."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from chassis.telemetry import metrics as registry
from customers.__main__ import cli as customers_cli
from dev.stack import ROOT
from orchestrator.__main__ import cli as orchestrator_cli
from orders.__main__ import cli as orders_cli
from tests.charts.examples import OF_OPERATORS
from tests.charts.prometheus import program
from tests.charts.rendering import render

RUNBOOKS = ROOT / "docs" / "runbooks"
LABELS = {"db_client_connection_pool_name", "db_client_connection_state"}
RULES = ROOT / "charts" / "b2b-orders" / "rules"
FILES = [RULES / "slo.yaml", RULES / "alerts.yaml"]
JOB = 'job="orchestrator",http_route="/orchestrator/create-and-confirm-order"'
REQUESTS = "http_server_request_duration_seconds"


def alerts() -> dict[str, Any]:
    found = yaml.safe_load((RULES / "alerts.yaml").read_text())
    return {rule["alert"]: rule for group in found["groups"] for rule in group["rules"]}


@dataclass(frozen=True)
class Case:
    """What Prometheus saw, a value each `step`, and whether the alert is on `after` so much time."""

    alert: str
    expected: Literal["fires", "silent"]
    series: dict[str, str]
    after: str = "30m"
    step: str = "1m"

    def __str__(self) -> str:
        return f"{self.alert}-{self.expected}-{CASES.index(self)}"


def jobs(failed: int, succeeded: int, steps: int, namespace: str = "shop") -> dict[str, str]:
    """The main job's requests in each step."""
    count = f'{REQUESTS}_count{{{JOB},namespace="{namespace}"'
    return {
        f'{count},http_response_status_code="503"}}': f"0+{failed}x{steps}",
        f'{count},http_response_status_code="201"}}': f"0+{succeeded}x{steps}",
    }


def slow(of_1000: int, steps: int) -> dict[str, str]:
    """Answers of orders, a thousand a minute, some of them later than promised."""
    return {
        f'{REQUESTS}_bucket{{job="orders",le="0.25"}}': f"0+{1000 - of_1000}x{steps}",
        f'{REQUESTS}_count{{job="orders"}}': f"0+1000x{steps}",
    }


def waits(metric: str, slow: int, le: str, labels: str = 'job="orders"') -> dict[str, str]:
    """A histogram in which so many of ten a minute took longer than `le`."""
    return {
        f'{metric}_bucket{{{labels},le="{le}"}}': f"0+{10 - slow}x60",
        f'{metric}_bucket{{{labels},le="2.5"}}': "0+10x60",
        f'{metric}_bucket{{{labels},le="+Inf"}}': "0+10x60",
    }


def runs(cronjob: str, scheduled: str, succeeded: str | None) -> dict[str, str]:
    """When a cron job ran last, and when a run last succeeded: None, where none did."""
    labels = f'{{namespace="shop",cronjob="{cronjob}"}}'
    series = {f"kube_cronjob_status_last_schedule_time{labels}": scheduled}
    if succeeded is not None:
        series[f"kube_cronjob_status_last_successful_time{labels}"] = succeeded
    return series


UP = {f'up{{job="{job}",instance="{job}-1"}}': "1x60" for job in ("customers", "orders", "orchestrator")}
MIGRATE = 'job_name="b2b-orders-migrate"'
HPA = 'namespace="shop",horizontalpodautoscaler="b2b-orders"'
CASES = (
    Case("ErrorBudgetBurnsFast", "fires", jobs(20, 980, 120), "2h"),
    Case("ErrorBudgetBurnsFast", "fires", jobs(8, 992, 110), "7h", "4m"),
    Case("ErrorBudgetBurnsFast", "fires", slow(200, 120), "2h"),
    # The traffic of another installation makes the failures of this one no rarer.
    Case("ErrorBudgetBurnsFast", "fires", {**jobs(20, 980, 120), **jobs(0, 99_000, 120, "busy")}, "2h"),
    Case("ErrorBudgetBurnsFast", "silent", jobs(4, 996, 110), "7h", "4m"),
    Case("ErrorBudgetBurnsFast", "silent", jobs(0, 1000, 120), "2h"),
    Case("ErrorBudgetBurnsFast", "silent", slow(5, 120), "2h"),
    Case("ErrorBudgetBurnsSlowly", "fires", jobs(4, 996, 110), "7h", "4m"),
    Case("ErrorBudgetBurnsSlowly", "fires", jobs(2, 998, 110), "7h", "4m"),
    Case("ErrorBudgetBurnsSlowly", "silent", jobs(1, 9999, 110), "7h", "4m"),
    Case("SagaNeedsAttention", "fires", {'b2b_sagas{state="NEEDS_ATTENTION"}': "0x10 1x60"}),
    Case("SagaNeedsAttention", "silent", {'b2b_sagas{state="RUNNING"}': "1x60"}),
    Case(
        "SagaStuck",
        "fires",
        {"b2b_saga_oldest_unfinished_seconds": "0+60x60", 'b2b_sagas{state="RUNNING"}': "1x60"},
    ),
    Case(
        "SagaStuck",
        "silent",
        {"b2b_saga_oldest_unfinished_seconds": "20x60", 'b2b_sagas{state="RUNNING"}': "5x60"},
    ),
    Case(
        "SagaStuck",
        "silent",
        {"b2b_saga_oldest_unfinished_seconds": "0+60x60", 'b2b_sagas{state="RUNNING"}': "0x60"},
    ),
    Case(
        "StockRefusalsRise",
        "fires",
        {"b2b_stock_conflicts_total": "0+60x90", 'b2b_orders_total{outcome="created"}': "0+60x90"},
        "80m",
    ),
    Case(
        "StockRefusalsRise",
        "silent",
        {"b2b_stock_conflicts_total": "0+20x90", 'b2b_orders_total{outcome="created"}': "0+60x90"},
        "80m",
    ),
    Case("ServiceDown", "fires", {**UP, 'up{job="orders",instance="orders-1"}': "0x60"}),
    Case("ServiceDown", "fires", {name: values for name, values in UP.items() if "orchestrator" not in name}),
    Case("ServiceDown", "silent", {**UP, 'up{job="orders",instance="orders-2"}': "0x60"}),
    Case("ServiceNotReady", "fires", {'b2b_ready{job="orders",instance="a"}': "1x5 0x60"}),
    Case(
        "ServiceNotReady",
        "silent",
        {'b2b_ready{job="orders",instance="a"}': "0x60", 'b2b_ready{job="orders",instance="b"}': "1x60"},
    ),
    Case("EventLoopBlocked", "fires", waits("b2b_event_loop_lag_seconds", 5, "0.25")),
    Case("EventLoopBlocked", "silent", waits("b2b_event_loop_lag_seconds", 0, "0.25")),
    Case(
        "TelemetryExportFails", "fires", {'b2b_spans_total{job="orders",result="failed"}': "0+60x60"}, "40m"
    ),
    Case(
        "TelemetryExportFails",
        "silent",
        {'b2b_spans_total{job="orders",result="exported"}': "0+60x60"},
        "40m",
    ),
    Case("ConnectionPoolSaturated", "fires", {'db_client_connection_timeouts_total{job="orders"}': "0+6x60"}),
    Case("ConnectionPoolSaturated", "fires", waits("db_client_connection_wait_time_seconds", 5, "1.0")),
    Case("ConnectionPoolSaturated", "silent", waits("db_client_connection_wait_time_seconds", 0, "1.0")),
    Case(
        "DeadlockStorm", "fires", {'b2b_transaction_retries_total{job="orders",error="deadlock"}': "0+120x60"}
    ),
    Case(
        "DeadlockStorm", "silent", {'b2b_transaction_retries_total{job="orders",error="stale"}': "0+120x60"}
    ),
    Case("LockWaitsLong", "fires", waits("b2b_lock_wait_seconds", 5, "1.0")),
    Case("LockWaitsLong", "silent", waits("b2b_lock_wait_seconds", 0, "1.0")),
    Case(
        "AutoscalerAtMaximum",
        "fires",
        {
            f"kube_horizontalpodautoscaler_status_current_replicas{{{HPA}}}": "8x60",
            f"kube_horizontalpodautoscaler_spec_max_replicas{{{HPA}}}": "8x60",
        },
    ),
    Case(
        "AutoscalerAtMaximum",
        "silent",
        {
            f"kube_horizontalpodautoscaler_status_current_replicas{{{HPA}}}": "7x60",
            f"kube_horizontalpodautoscaler_spec_max_replicas{{{HPA}}}": "8x60",
        },
    ),
    Case("MigrationFailed", "fires", {f'kube_job_failed{{{MIGRATE},condition="true"}}': "0x5 1x60"}),
    Case(
        "MigrationFailed",
        "silent",
        {
            f"kube_job_status_failed{{{MIGRATE}}}": "1x60",
            f'kube_job_failed{{{MIGRATE},condition="false"}}': "1x60",
            'kube_job_failed{job_name="b2b-orders-expire-7",condition="true"}': "1x60",
        },
    ),
    Case("ReconciliationFailed", "fires", runs("b2b-orders-reconcile", "1000x10 87400x50", "1005x60")),
    Case("ReconciliationFailed", "fires", runs("b2b-orders-reconcile", "1000x60", None)),
    Case(
        "ReconciliationFailed", "silent", runs("b2b-orders-reconcile", "1000x10 87400x50", "1005x20 87900x40")
    ),
    Case("ReconciliationFailed", "silent", runs("b2b-orders-expire", "1000x10 87400x50", "1005x60")),
    Case("CronJobFailed", "fires", runs("b2b-orders-expire", "1000x10 4600x60 8200x60", "1005x140"), "2h"),
    Case(
        "CronJobFailed",
        "silent",
        runs("b2b-orders-expire", "1000x10 4600x60 8200x60", "1005x12 4605x60 8205x60"),
        "2h",
    ),
    Case("CronJobFailed", "silent", runs("b2b-orders-reconcile", "1000x60", None), "2h"),
)


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603 - a program of Prometheus
        (program("promtool"), *arguments),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The rules that the chart gives to Prometheus: recorded ratios in one file, alerts in another."""
    folder = tmp_path_factory.mktemp("rules")
    groups = render(OF_OPERATORS).one("PrometheusRule", "b2b")["spec"]["groups"]
    recorded = [group for group in groups if any("record" in rule for rule in group["rules"])]
    parts = {"recorded": recorded, "alerts": [group for group in groups if group not in recorded]}
    for name, part in parts.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"groups": part}))
    return [folder / f"{name}.yaml" for name in parts]


def test_the_rules_are_valid(rendered: list[Path]) -> None:
    done = run("check", "rules", "--lint-fatal", *map(str, [*FILES, *rendered]))

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES, ids=str)
def test_alerts_fire_when_they_should_and_only_then(case: Case, rendered: list[Path], tmp_path: Path) -> None:
    firing = f'count(ALERTS{{alertname="{case.alert}",alertstate="firing"}})'
    expected = [{"labels": "{}", "value": 1}] if case.expected == "fires" else []
    test = {
        # The others need no recorded ratios, and evaluating them for hours takes a while.
        "rule_files": [str(file) for file in (rendered if "Budget" in case.alert else rendered[1:])],
        "evaluation_interval": case.step,
        "tests": [
            {
                "interval": case.step,
                "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
                "promql_expr_test": [{"expr": firing, "eval_time": case.after, "exp_samples": expected}],
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))

    done = run("test", "rules", str(tmp_path / "test.yaml"))

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_seen_to_fire_and_to_be_silent() -> None:
    for expected in ("fires", "silent"):
        assert {case.alert for case in CASES if case.expected == expected} == set(alerts())


def test_rules_and_runbooks_speak_of_metrics_that_exist() -> None:
    declared = {
        f"{sample}{suffix}"
        for metric in vars(registry).values()
        if isinstance(metric, MetricWrapperBase)
        for family in metric.describe()
        for sample in (family.name, f"{family.name}_total")
        for suffix in ("", "_bucket", "_count", "_sum")
    }

    for file in (*FILES, *RUNBOOKS.glob("*.md")):
        named = set(re.findall(r"\b(?:b2b|http_server|http_client|db_client)_\w+", file.read_text()))
        assert {name for name in named if "_total_" not in name and name not in LABELS} <= declared, file.name


def test_runbooks_name_commands_that_exist() -> None:
    clis = {"customers": customers_cli, "orders": orders_cli, "orchestrator": orchestrator_cli}
    named = {
        found
        for file in RUNBOOKS.glob("*.md")
        for found in re.findall(r"python -m (\w+) (\w+)", file.read_text())
    }

    assert named
    for service, command in named:
        callbacks = [found.callback for found in clis[service].registered_commands]
        assert command in {callback.__name__ for callback in callbacks if callback is not None}


@pytest.mark.parametrize("name", alerts())
def test_every_alert_says_how_urgent_it_is_and_what_to_do(name: str) -> None:
    rule = alerts()[name]

    assert rule["labels"]["severity"] in ("page", "ticket")
    assert "{{ $" in rule["annotations"]["summary"]
    runbook = (ROOT / rule["annotations"]["runbook"]).read_text()
    assert name in runbook
    for heading in ("What it means", "First look", "What to do"):
        assert re.search(rf"^## {heading}$", runbook, re.MULTILINE), heading
