"""One service by its chart: its names, its settings as the service reads them, its migrations and its job."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import customers.settings
import orchestrator.settings
import orders.settings
from chassis.settings import Settings
from chassis.telemetry.export import LAST_SECONDS
from dev.docs import SCHEMAS
from orchestrator.driver import GIVE_BACK_SECONDS
from tests.charts.cluster import cluster
from tests.charts.examples import EXAMPLES, NEEDED
from tests.charts.rendering import SERVICE, SERVICES, UMBRELLA, Release, helm, merged, refusal, render

CLASSES: dict[str, type[Settings]] = {
    "customers": customers.settings.Settings,
    "orders": orders.settings.Settings,
    "orchestrator": orchestrator.settings.Settings,
}
SECRETS = {
    "DATABASE_URL": "mysql://b2b:secret@mysql:3306/b2b",
    "DB_USERNAME": "b2b",
    "DB_PASSWORD": "secret",
}


def alone(service: str, name: str, values: dict[str, Any] | None = None) -> Release:
    """A release of one service."""
    file = SERVICE / f"values-{service}.yaml"
    return render(merged(NEEDED, values or {}), chart=SERVICE, files=[file], name=name)


def environment(release: Release, container: dict[str, Any]) -> dict[str, str]:
    """What a container's environment is, once Secrets and ConfigMaps are there."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        found |= release.one("ConfigMap", source["configMapRef"]["name"])["data"]
    for variable in container.get("env", ()):
        if "secretKeyRef" in variable.get("valueFrom", {}):
            found[variable["name"]] = SECRETS[variable["valueFrom"]["secretKeyRef"]["key"]]
        elif "value" in variable:
            found[variable["name"]] = variable["value"]
    return found


def containers(release: Release) -> Iterator[tuple[str, dict[str, Any]]]:
    """The containers that read settings: all but those of the job and of the smoke test."""
    for owner, template in release.pods():
        for container in (*template["spec"].get("initContainers", ()), *template["spec"]["containers"]):
            if container["name"] not in ("job", "smoke-test"):
                yield owner, container


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_service_and_command_takes_the_settings_that_the_chart_gives_it(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "service-token").write_text("a-token\n")
    release = render(EXAMPLES[example])
    seen = set()

    for _, container in containers(release):
        service = container["args"][0]
        variables = environment(release, container)
        assert variables["SERVICE_TOKEN_FILE"] == "/run/b2b-orders/service-token"
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            patch.setenv("SERVICE_TOKEN_FILE", str(tmp_path / "service-token"))
            settings = CLASSES[service]()
        seen.add((service, container["args"][1]))
        assert not settings.embedded
        assert settings.port == CLASSES[service].model_fields["port"].default
        assert settings.admin_port == CLASSES[service].model_fields["admin_port"].default

    assert {(service, "serve") for service in SERVICES} <= seen


def test_a_commands_pod_has_the_settings_of_its_service() -> None:
    release = render(EXAMPLES["needed"])
    serving = {
        container["args"][0]: environment(release, container)
        for owner, container in containers(release)
        if owner.startswith("Deployment")
    }

    for owner, container in containers(release):
        assert environment(release, container) == serving[container["args"][0]], owner


def test_numbers_and_a_bare_off_arrive_as_the_service_reads_them() -> None:
    values = yaml.safe_load(
        "{config: {AUTH: off, MAX_BODY_BYTES: 67108864, RATE_LIMIT: 1000000, OIDC_LEEWAY: 0.5}}"
    )

    release = alone("orders", "b2b-orders", values)

    data = release.one("ConfigMap", "b2b-orders")["data"]
    assert [data[name] for name in ("AUTH", "MAX_BODY_BYTES", "RATE_LIMIT", "OIDC_LEEWAY")] == [
        "off",
        "67108864",
        "1000000",
        "0.5",
    ]


@pytest.mark.parametrize(
    ("name", "called", "peer"),
    [
        ("orders", "orders", "http://customers:3001"),
        ("b2b-orders", "b2b-orders", "http://b2b-customers:3001"),
        ("b2b", "b2b-orders", "http://b2b-customers:3001"),
    ],
)
def test_a_service_alone_has_the_names_of_one_in_the_umbrella(name: str, called: str, peer: str) -> None:
    release = alone("orders", name)

    assert release.names("Deployment") == release.names("Service") == {called}
    assert release.one("ConfigMap", called)["data"]["CUSTOMERS_API_BASE"] == peer


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_alone_is_what_it_is_in_the_umbrella(service: str) -> None:
    name = f"b2b-{service}"
    # They are other releases, so only the label that says which may differ.
    single = json.dumps(alone(service, name).objects).replace(f'instance": "{name}"', 'instance": "b2b"')
    ours = [
        one
        for one in render(NEEDED).objects
        if one["metadata"]["labels"]["app.kubernetes.io/name"] == service
    ]

    assert json.loads(single) == ours


def test_what_both_charts_say_of_what_services_share_is_the_same() -> None:
    schemas = [json.loads(file.read_text())["definitions"] for file in SCHEMAS]
    defaults = [
        yaml.safe_load((chart / "values.yaml").read_text())["global"] for chart in (UMBRELLA, SERVICE)
    ]

    assert defaults[0] == defaults[1]
    for shared in schemas[0].keys() & schemas[1].keys():
        assert schemas[0][shared] == schemas[1][shared], shared
    assert "global" in schemas[0]


def test_a_release_name_that_other_names_would_not_fit_is_refused() -> None:
    said = refusal(NEEDED, name="a-name-that-nobody-would-want-to-type")

    assert "the release name a-name-that-nobody-would-want-to-type is too long" in said


def test_the_migration_of_a_first_install_needs_nothing_that_the_chart_has_not_made_yet() -> None:
    for service in SERVICES:
        job = render(NEEDED).one("Job", f"b2b-{service}-migrate")

        assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
        text = json.dumps(job)
        assert "configMap" not in text
        assert "serviceAccountName" not in text


@pytest.mark.parametrize(("mode", "jobs", "init"), [("hook", 1, 0), ("initContainer", 0, 1), ("none", 0, 0)])
def test_migrations_run_where_their_mode_says(mode: str, jobs: int, init: int) -> None:
    release = alone("orders", "b2b-orders", {"migrations": {"mode": mode}})

    pod = release.one("Deployment", "b2b-orders")["spec"]["template"]["spec"]
    found = pod.get("initContainers", [])
    assert len(release.all("Job")) == jobs
    assert [container["args"] for container in found] == [["orders", "migrate"]] * init


def test_a_file_of_orders_is_not_run_again_by_an_upgrade() -> None:
    values = {"job": {"enabled": True, "name": "monday", "file": {"url": "https://files.example/a.csv"}}}
    made = alone("orchestrator", "b2b", values).one("Job", "b2b-orchestrator-job-monday")
    # As the API server has it, who adds to it.
    there = {**made, "spec": {**made["spec"], "selector": {}, "completions": 1}}
    of_others = {**there, "metadata": {"name": "b2b-orchestrator-job-else"}}
    jobs = {"kind": "JobList", "apiVersion": "batch/v1", "items": [there, of_others]}

    with cluster({"/apis/batch/v1/namespaces/b2b-orders/jobs": jobs}) as url:
        done = helm(
            *("template", "b2b", str(SERVICE), "--namespace=b2b-orders"),
            *("--dry-run=server", "--disable-openapi-validation", f"--kube-apiserver={url}"),
            f"--values={SERVICE / 'values-orchestrator.yaml'}",
            "--set=global.db.existingSecret=b2b-orders,global.image.tag=2.0.0,job.enabled=true,job.name=tuesday",
            "--set=job.backoffLimit=1,job.file.url=http://files.example/a.csv",
        )

    assert done.returncode == 0, done.stderr
    objects = [one for one in yaml.safe_load_all(done.stdout) if one and "helm.sh/hook" not in str(one)]
    runs = {one["metadata"]["name"]: one for one in objects if one["kind"] == "Job"}
    assert runs.keys() == {"b2b-orchestrator-job-monday", "b2b-orchestrator-job-tuesday"}
    # It stays in the manifest, or a rollback to this release would have to make what is there.
    assert runs["b2b-orchestrator-job-monday"]["spec"] == made["spec"]
    assert runs["b2b-orchestrator-job-monday"]["metadata"]["annotations"] == made["metadata"]["annotations"]
    assert runs["b2b-orchestrator-job-tuesday"]["spec"] != made["spec"]
    assert made["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_a_job_fetches_its_file_by_the_proxy_that_the_service_is_told_of() -> None:
    proxy = {"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"}
    job = {"enabled": True, "name": "monday", "file": {"url": "https://files.example/a.csv"}}

    release = alone("orchestrator", "b2b", {"job": job, "extraEnv": [proxy]})

    pod = release.one("Job", "b2b-orchestrator-job-monday")["spec"]["template"]["spec"]
    assert proxy in pod["containers"][0]["env"]


def test_a_jobs_name_depends_on_nothing_but_its_own() -> None:
    job = {"enabled": True, "name": "monday", "file": {"url": "http://files.example/a.csv"}}
    first, second = (
        alone("orchestrator", "b2b", {"job": job, "global": {"image": {"tag": tag}}})
        for tag in ("1.0.0", "1.0.1")
    )

    assert "b2b-orchestrator-job-monday" in first.names("Job") & second.names("Job")


def test_the_grace_period_is_refused_when_the_end_of_a_pod_may_take_longer() -> None:
    said = refusal(merged(NEEDED, {"orders": {"config": {"SHUTDOWN_TIMEOUT": 30}}}))

    assert "orders cannot be installed" in said
    for value in ("terminationGracePeriodSeconds 45", "53 s", "config.SHUTDOWN_TIMEOUT", "preStopSeconds"):
        assert value in said
    render(
        merged(NEEDED, {"orders": {"config": {"SHUTDOWN_TIMEOUT": 30}, "terminationGracePeriodSeconds": 53}})
    )


def test_everything_wrong_with_a_service_is_said_at_once() -> None:
    said = refusal(
        {
            "autoscaling": {"minReplicas": 1, "keda": {"enabled": True}},
            "config": {"AUTH": "jwt"},
            "job": {"enabled": True},
        },
        chart=SERVICE,
    )

    for value in (
        "service.name is empty",
        "global.db.existingSecret is empty",
        "autoscaling.hpa.enabled and autoscaling.keda.enabled",
        "autoscaling.minReplicas is 1 and podDisruptionBudget.enabled",
        "config.OIDC_ISSUER is empty",
        "job.name is empty",
        "job.file.configMap",
    ):
        assert value in said


def test_what_the_code_needs_at_its_end_beside_the_settings_is_in_the_sum() -> None:
    said = refusal(merged(NEEDED, {"orders": {"terminationGracePeriodSeconds": 1}}))

    assert f"config.DB_TIMEOUT + {GIVE_BACK_SECONDS + LAST_SECONDS}" in said
