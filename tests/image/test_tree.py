"""The files of the image, made by the steps of the Dockerfile, and the three services run from them alone."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dev.ports import HOST
from dev.stack import PORTS, chosen_ports, tail
from orchestrator.answers import JOB_PATH
from tests.image.dockerfile import Build
from tests.image.process import USER, Container
from tests.orchestrator.shop import until

LARGEST_MB = 110
SERVICES = tuple(PORTS)
pytestmark = pytest.mark.xdist_group("image")  # it is built once


@pytest.fixture(scope="module")
def build() -> Iterator[Build]:
    """The stages of the image, in a folder that every user can get at."""
    with tempfile.TemporaryDirectory(prefix="image-") as folder:
        Path(folder).chmod(0o755)
        yield Build(Path(folder))


@pytest.fixture(scope="module")
def container(build: Build) -> Container:
    """The image for production."""
    return Container(build, "run")


def _state(tree: Path) -> dict[str, tuple[int, int]]:
    """What is in a tree, but for the data: sizes and times."""
    found = (path for path in tree.rglob("*") if path.relative_to(tree).parts[0] != "data")
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def test_it_has_what_a_service_needs_and_nothing_else(container: Container) -> None:
    packages = container.tree / "packages"
    files = [path for path in container.tree.rglob("*") if path.is_file()]
    distributions = {path.name.partition("-")[0].lower() for path in packages.glob("*.dist-info")}

    assert {path.name for path in container.tree.iterdir()} == {"app", "data", "packages"}
    assert {path.name for path in (container.tree / "app").iterdir()} == {"chassis", *SERVICES}
    assert {"aiohttp", "alembic", "asyncmy", "swagger_ui_py"} <= distributions
    assert (
        not {"pip", "setuptools", "uv", "pytest", "mypy", "ruff", "hypothesis", "watchfiles"} & distributions
    )
    assert [
        path for path in files if path.suffix in {".c", ".cpp", ".h", ".pyx", ".map", ".whl", ".log"}
    ] == []
    assert [path for path in files if re.search(r"/(tests|bin|\.cache)/", str(path))] == []
    assert [path for path in files if path.suffix == ".py" and not _bytecode(path)] == []
    assert sum(path.stat().st_size for path in files) < LARGEST_MB * 1_000_000


def _bytecode(source: Path) -> list[Path]:
    return list((source.parent / "__pycache__").glob(f"{source.stem}.cpython-*.pyc"))


def test_everybody_may_read_it_and_only_root_may_write(container: Container) -> None:
    for path in (container.tree, *container.tree.rglob("*")):
        if path.is_symlink() or "data" in path.relative_to(container.tree).parts[:1]:
            continue
        mode = path.stat().st_mode
        assert mode & 0o044 == 0o044, path
        assert mode & 0o022 == 0, path
        assert path.stat().st_uid == os.geteuid(), path


async def test_the_three_services_run_from_it_as_another_user_and_write_nothing(
    container: Container, tmp_path: Path
) -> None:
    before = _state(container.tree)
    with ExitStack() as stack:
        ports = stack.enter_context(chosen_ports("free"))
        peers = {f"{name.upper()}_API_BASE": f"http://{HOST}:{ports[name][0]}" for name in SERVICES}
        processes = {}
        for name in SERVICES:
            its = {"PORT": str(ports[name][0]), "ADMIN_PORT": str(ports[name][1]), "HOST": HOST}
            log = tmp_path / f"{name}.log"
            processes[name] = container.start(name, "serve", log=log, DRAIN_SECONDS="0", **its, **peers)
            stack.callback(_end, processes[name])
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
            for name in SERVICES:
                await _ready(http, ports[name][1], processes[name], tmp_path / f"{name}.log")
            order = await _one_order(http, peers)
            async with http.get(f"{peers['ORDERS_API_BASE']}/docs/swagger-ui-bundle.js") as assets:
                assert assets.status == 200
        users = {re.search(r"^Uid:\s+(\d+)", _status(one), re.MULTILINE)[1] for one in processes.values()}  # type: ignore[index]  # Linux says it
        checked = await asyncio.to_thread(container.run, "orders", "migrate", "--check")
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        codes = [await asyncio.to_thread(process.wait, 30) for process in processes.values()]

    assert order["status"] == "CONFIRMED"
    assert checked.stdout.endswith("up to date\n"), checked.stderr
    assert codes == [0, 0, 0]
    assert users == {USER if container.is_apart else str(os.geteuid())}
    assert [path for path, state in _state(container.tree).items() if before.get(path) != state] == []
    assert {path.name for path in container.data.glob("*.db")} == {f"{name}.db" for name in SERVICES}


def _status(process: "subprocess.Popen[bytes]") -> str:
    return Path(f"/proc/{process.pid}/status").read_text()


async def _ready(
    http: aiohttp.ClientSession, admin_port: int, process: "subprocess.Popen[bytes]", log: Path
) -> None:
    async with asyncio.timeout(120):
        while True:
            assert process.poll() is None, tail(log)
            try:
                async with http.get(f"http://{HOST}:{admin_port}/readyz") as answer:
                    if answer.ok:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)


async def _one_order(http: aiohttp.ClientSession, peers: dict[str, str]) -> Any:
    customers, orders = peers["CUSTOMERS_API_BASE"], peers["ORDERS_API_BASE"]
    customer = {"name": "ACME", "email": "ops@acme.example"}
    product = {"sku": "DESK", "name": "Oak desk", "price_cents": 1000, "stock": 5}
    job = {"customer_id": 1, "items": [{"product_id": 1, "qty": 2}], "idempotency_key": "key-1"}
    for url, body in (
        (f"{customers}/admin/customers/create-customer", customer),
        (f"{orders}/admin/products/create-product", product),
        (f"{peers['ORCHESTRATOR_API_BASE']}{JOB_PATH}", job),
    ):
        async with http.post(url, json=body) as answer:
            assert answer.status == 201, await answer.text()
            said = await answer.json()
    return said["data"]["order"]


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.kill()
        process.wait()


async def test_a_service_without_settings_says_what_it_wants(container: Container) -> None:
    done = await asyncio.to_thread(
        container.run, "orders", "serve", DB_HOST="db.example", ENVIRONMENT="production"
    )

    assert done.returncode == 78
    assert "SERVICE_TOKEN" in done.stderr
    assert "Traceback" not in done.stderr


async def test_in_development_a_service_starts_again_when_a_source_changes(
    build: Build, tmp_path: Path
) -> None:
    tree = build.tree("dev")
    entry = ("/bin/sh", str(tree / "watch" / "reload.sh"))
    log, data = tmp_path / "customers.log", {"DATA_DIR": str(tmp_path), "LOG_FORMAT": "json"}
    own = {"PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))}
    variables = {**own, **build.environment("dev"), **data, "PORT": "0", "ADMIN_PORT": "0", "HOST": HOST}

    once = await asyncio.to_thread(
        subprocess.run, (*entry, "customers", "migrate"), cwd=tree / "app", env=variables, check=False
    )
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *entry, "customers", "serve", cwd=tree / "app", env=variables, stdout=out, stderr=out
        )
    try:
        await _served(log, 1)
        with (tree / "app" / "customers" / "app.py").open("a") as source:
            source.write("# changed\n")
        await _served(log, 2)
    finally:
        process.terminate()
        await process.wait()

    assert once.returncode == 0


async def _served(log: Path, times: int) -> None:
    async def served() -> bool:
        return log.read_text().count('"event": "serving"') >= times  # noqa: ASYNC240 - a short file

    await until(served)
