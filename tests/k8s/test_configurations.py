"""The files of configuration in k8s/, tried with the programs that read them, as far as these can be had.

MySQL's script runs on MariaDB. The Collector, Jaeger and Grafana come from no package: of their files it is
tested that they agree with one another and with the manifests.
"""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

import customers.app
import customers.settings
import orchestrator.settings
import orders.app
import orders.settings
from chassis import migrations
from chassis.settings import parse_database_url
from dev.mariadb import private_server
from dev.stack import ROOT
from tests.charts.prometheus import program, running
from tests.charts.rendering import SERVICES
from tests.client import HOST, Serve
from tests.databases import MakeSettings, execute, on_database
from tests.k8s.manifests import K8S, VALUES, Object, named, release, secret, write_files
from tests.orchestrator.shop import until
from tests.processes import environment

SETTINGS = (customers.settings.Settings, orders.settings.Settings, orchestrator.settings.Settings)


def configuration(name: str, file: str) -> Any:
    """A file of YAML in a ConfigMap."""
    return yaml.safe_load(named("ConfigMap", name)["data"][file])


def container(kind: str, name: str) -> Object:
    (one,) = named(kind, name)["spec"]["template"]["spec"]["containers"]
    return dict(one)


# --- Prometheus ---------------------------------------------------------------------------------


Target = dict[str, Any]


@pytest.fixture
def etc_prometheus(tmp_path: Path) -> Path:
    """What the pod has in /etc/prometheus; but pods are found in a file, `targets.json`.

    Debian builds Prometheus without its client of Kubernetes.
    """
    write_files(named("ConfigMap", "rules"), tmp_path / "rules")
    config = configuration("prometheus", "prometheus.yml")
    (scraped,) = config["scrape_configs"]
    found_in = scraped.pop("kubernetes_sd_configs")
    assert found_in == [{"role": "pod", "namespaces": {"names": ["b2b-orders"]}}]
    scraped["file_sd_configs"] = [{"files": ["targets.json"]}]
    config["global"]["scrape_interval"] = "1s"
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    (tmp_path / "targets.json").write_text("[]")
    return tmp_path


def test_promtool_takes_configuration_and_rules(etc_prometheus: Path) -> None:
    done = subprocess.run(  # noqa: S603 - our own program
        (program("promtool"), "check", "config", str(etc_prometheus / "prometheus.yml")),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 rule files found" in done.stdout
    mounts = {
        mount["mountPath"]: mount["name"] for mount in container("Deployment", "prometheus")["volumeMounts"]
    }
    assert mounts["/etc/prometheus/prometheus.yml"] == "config"
    assert mounts["/etc/prometheus/rules"] == "rules"


def targets(name: str, template: Object, admin_port: int) -> Iterator[Target]:
    """What Prometheus makes of a pod: a target for each port, before any rule."""
    labels = {
        f"__meta_kubernetes_pod_label_{re.sub('[^A-Za-z0-9_]', '_', label)}": value
        for label, value in template["metadata"]["labels"].items()
    }
    for one in template["spec"]["containers"]:
        for port in one.get("ports", [{"name": "", "containerPort": 80}]):
            meta = {
                "__meta_kubernetes_namespace": "b2b-orders",
                "__meta_kubernetes_pod_name": name,
                "__meta_kubernetes_pod_container_init": "false",
                "__meta_kubernetes_pod_container_name": one["name"],
                "__meta_kubernetes_pod_container_port_name": port["name"],
                **labels,
            }
            # All admin ports are one here; where nothing may be scraped nothing listens.
            number = admin_port if port["name"] == "admin" else 1
            yield {"targets": [f"{HOST}:{number}"], "labels": meta}


@pytest.fixture
async def admin_port() -> AsyncIterator[int]:
    """A port where metrics are."""

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(text="b2b_ready 1\n", content_type="text/plain")

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def test_prometheus_finds_the_pods_that_serve_and_knows_them_by_their_service(
    etc_prometheus: Path, admin_port: int
) -> None:
    found = [target for name, template in release().pods() for target in targets(name, template, admin_port)]
    serving = release().one("Deployment", "b2b-orders")["spec"]["template"]
    stranger = {**serving, "metadata": {"labels": {"app.kubernetes.io/name": "stranger"}}}
    found += targets("of others, with a port of that name", stranger, admin_port)
    (etc_prometheus / "targets.json").write_text(json.dumps(found))

    async with running(etc_prometheus) as prometheus:

        async def all_scraped() -> Any:
            series = await prometheus.query("b2b_ready")
            return series if len(series) >= 3 else None

        await until(all_scraped)
        series = await prometheus.query("up == 1")
        everything = await prometheus.query("up")

    assert len(found) > len(series) == len(everything)
    wanted = {(service, "b2b-orders", f"Deployment b2b-{service}") for service in SERVICES}
    labels = ("job", "namespace", "pod")
    assert {tuple(one["metric"][label] for label in labels) for one in series} == wanted


# --- MySQL --------------------------------------------------------------------------------------


def test_the_script_makes_a_database_for_each_service_and_a_user_that_reaches_no_other(
    tmp_path: Path,
) -> None:
    """As the entry point of the image runs it: read by a shell that has `docker_process_sql`."""
    script = tmp_path / "databases.sh"
    script.write_text(named("ConfigMap", "mysql")["data"]["databases.sh"])
    with private_server(tmp_path) as server:
        client = f"mariadb --no-defaults --protocol=tcp --host={HOST} --port={server.port} --user=root"
        subprocess.run(  # noqa: S603 - our own script
            ("/bin/sh", "-euc", f'docker_process_sql() {{ {client}; }}; . "{script}"'),
            env=environment(**secret("mysql")),
            check=True,
        )
        for settings in SETTINGS:
            given = secret("b2b-orders-development")[f"{settings.service.upper()}_DATABASE_URL"]
            url = parse_database_url(given).set(host=HOST, port=server.port)
            reaches = url.render_as_string(hide_password=False)

            asyncio.run(migrations.upgrade(settings(**on_database(reaches))))

            seen = {name for (name,) in execute(reaches.replace("+asyncmy", ""), "SHOW DATABASES")}
            assert seen - {"information_schema"} == {settings.service}


def test_mysql_takes_as_many_connections_as_the_chart_counts_on() -> None:
    values = yaml.safe_load(VALUES.read_text())
    options = dict(
        line.split(" = ")
        for line in named("ConfigMap", "mysql")["data"]["development.cnf"].splitlines()
        if " = " in line
    )

    assert int(options["max_connections"]) == values["global"]["db"]["maxConnections"]


# --- Collector, Jaeger, Grafana -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["collector", "jaeger"])
def test_what_listens_in_a_configuration_is_a_port_of_the_container(name: str) -> None:
    config = configuration(name, "config.yaml")
    ports = {port["name"]: port["containerPort"] for port in container("Deployment", name)["ports"]}
    extensions = config["extensions"]
    listens = {
        "otlp-grpc": config["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"],
        "otlp-http": config["receivers"]["otlp"]["protocols"]["http"]["endpoint"],
        "health": extensions["health_check"]["endpoint"]
        if name == "collector"
        else extensions["healthcheckv2"]["http"]["endpoint"],
    }
    if name == "jaeger":
        listens["query"] = extensions["jaeger_query"]["http"]["endpoint"]

    assert listens == {port: f"0.0.0.0:{number}" for port, number in ports.items()}


@pytest.mark.parametrize("name", ["collector", "jaeger"])
def test_every_part_of_a_pipeline_is_configured_and_used(name: str) -> None:
    config = configuration(name, "config.yaml")
    (pipeline,) = config["service"]["pipelines"].values()

    assert set(config["service"]["extensions"]) == set(config["extensions"])
    for part in ("receivers", "processors", "exporters"):
        assert set(pipeline[part]) == set(config[part])
    mounted = {mount["mountPath"] for mount in container("Deployment", name)["volumeMounts"]}
    assert container("Deployment", name)["args"] == [f"--config={mounted.pop()}/config.yaml"]


def test_spans_go_from_the_services_to_the_collector_to_jaeger() -> None:
    sent_to = release().one("ConfigMap", "b2b-orders")["data"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    exporter = configuration("collector", "config.yaml")["exporters"]["otlp_grpc"]["endpoint"]

    for address in (sent_to.removeprefix("http://"), exporter):
        host, _, port = address.partition(":")
        service = named("Service", host.removesuffix(".b2b-infra"))
        assert int(port) in {one["port"] for one in service["spec"]["ports"]}


def test_grafana_asks_what_is_there_and_leads_from_dots_to_traces() -> None:
    sources = {one["uid"]: one for one in configuration("grafana", "datasources.yaml")["datasources"]}

    for source in sources.values():
        host, _, port = source["url"].removeprefix("http://").partition(":")
        assert int(port) in {one["port"] for one in named("Service", host)["spec"]["ports"]}
    assert [one["uid"] for one in sources.values() if one.get("isDefault")] == ["prometheus"]
    (leads,) = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert (leads["name"], sources[leads["datasourceUid"]]["type"]) == ("trace_id", "jaeger")


def test_grafana_has_the_boards_of_the_chart() -> None:
    boards = named("ConfigMap", "boards")["data"]
    there = {file.name: file.read_text() for file in (ROOT / "charts/b2b-orders/dashboards").glob("*.json")}
    (provider,) = configuration("grafana", "boards.yaml")["providers"]
    grafana = container("Deployment", "grafana")
    mounts = {mount["mountPath"]: mount["name"] for mount in grafana["volumeMounts"]}
    home = next(one["value"] for one in grafana["env"] if one["name"].endswith("HOME_DASHBOARD_PATH"))

    assert boards == there
    assert mounts[provider["options"]["path"]] == "boards"
    assert Path(home).parent == Path(provider["options"]["path"])
    assert json.loads(boards[Path(home).name])["uid"] == "b2b-orders"


def test_prometheus_has_the_rules_of_the_chart() -> None:
    there = {file.name: file.read_text() for file in (ROOT / "charts/b2b-orders/rules").glob("*.yaml")}

    assert named("ConfigMap", "rules")["data"] == there


# --- sample data --------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_the_job_of_the_demo_makes_sample_data_from_the_files_it_is_given(
    make_settings: MakeSettings, serve: Serve, tmp_path: Path
) -> None:
    demo = K8S / "demo"
    (job,) = named("Job", "sample-data", demo)["spec"]["template"]["spec"]["containers"]
    write_files(named("ConfigMap", "sample-data", demo), tmp_path / "run" / "dev")
    assert job["workingDir"] == str(Path(job["volumeMounts"][0]["mountPath"]).parent)

    first = await serve(customers.app.create_app(make_settings(customers.settings.Settings)))
    settings = make_settings(orders.settings.Settings, customers_api_base=first.url)
    second = await serve(orders.app.create_app(settings))
    urls = {"http://b2b-customers:3001": first.url, "http://b2b-orders:3002": second.url}
    given = {one["name"]: urls[one["value"]] for one in job["env"]}

    runs = [await sample_data(job["args"], tmp_path / "run", given) for _ in range(2)]

    assert runs[0] == runs[1]
    assert runs[0].startswith("customer 1: ACME Corporation\nproduct 1: DESK-OAK, 500 available\n")


async def sample_data(args: list[str], folder: Path, given: dict[str, str]) -> str:
    """What the container does: `python -m` with its arguments, in the folder of the files."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *args, cwd=folder, env=environment(**given), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()
