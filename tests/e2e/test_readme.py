"""Every command of the documents and of the chart's notes, run as it stands (with the ports of this run)."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from dev import docs
from dev.debian import require
from dev.sample import load
from dev.stack import PORTS, ROOT, Stack, stack
from tests.charts.notes import first_order
from tests.issuer import Issuer

README = ROOT / "README.md"


def _commands() -> list[str]:
    """The commands of the ```bash blocks, each with its continuation lines."""
    text = README.read_text() + docs.TELEMETRY.read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [
        command
        for block in blocks
        for command in re.findall(
            r"^(?:make|curl|python) (?:.*\\\n)*(?:.*'\{\n(?:.*\n)*?.*\}'|.*)$", block, flags=re.MULTILINE
        )
    ]


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Stack]:
    """What `make up` runs."""
    require(["curl"], ["curl"])
    async with stack(tmp_path) as running:
        async with aiohttp.ClientSession() as http:
            await load(http, running)
        yield running


def _of_this_run(command: str, services: Stack) -> str:
    for service in services:
        public, admin = PORTS[service.name]
        command = command.replace(f"http://localhost:{public}", service.url)
        command = command.replace(f"http://localhost:{admin}", service.admin_url)
    return command


async def _sh(command: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return await asyncio.to_thread(
        subprocess.run,
        ("sh", "-c", command),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


async def test_every_curl_and_operator_command_works_in_the_order_of_the_documents(services: Stack) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environment = {**services.orders.environment, "PATH": path}
    commands = [command for command in _commands() if not command.startswith("make")]
    assert len(commands) >= 12
    commands += first_order()

    for command in commands:
        done = await _sh(_of_this_run(command, services), environment)

        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        if command.startswith("curl"):
            assert done.stdout.startswith("{"), command
            assert '"code":' not in done.stdout, f"{command}\n{done.stdout}"


async def test_the_first_curl_says_what_the_readme_says(services: Stack) -> None:
    curl = next(command for command in _commands() if "create-and-confirm-order" in command)
    curl = _of_this_run(curl, services).replace("curl -s", "curl -si")

    first, again = [await _sh(curl, dict(os.environ)) for _ in range(2)]

    assert first.stdout.startswith("HTTP/1.1 201")
    assert '"status":"CONFIRMED"' in first.stdout
    assert '"correlation_id":"req-456"' in first.stdout
    assert "Idempotent-Replayed: true" in again.stdout
    assert again.stdout.splitlines()[-1] == first.stdout.splitlines()[-1]


async def test_the_example_of_authentication_works(tmp_path: Path, issuer: Issuer) -> None:
    section = README.read_text().partition("## Authentication\n")[2].partition("\n## ")[0]
    [variables] = re.findall(r"^```ini\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    [command] = re.findall(r"^```sh\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    told = dict(line.split("=", 1) for line in variables.splitlines())
    told["OIDC_JWKS"] = told["OIDC_JWKS"].replace("https://id.example.com", issuer.url)

    async with stack(tmp_path, environment=told) as running:
        clerk = issuer.bearer("customers:read customers:write products:read products:write")
        async with aiohttp.ClientSession(headers=clerk) as http:
            await load(http, running)
        curl = _of_this_run(command, running)
        done, stranger = [
            await _sh(curl, {**os.environ, "TOKEN": token})
            for token in (issuer.token("sagas:write"), "of somebody else")
        ]

    assert '"status":"CONFIRMED"' in done.stdout
    assert '"code":"auth.token_invalid"' in stranger.stdout


@pytest.mark.parametrize("command", [command for command in _commands() if command.startswith("make")])
def test_every_make_command_has_a_target(command: str) -> None:
    done = subprocess.run(  # noqa: S603 - the README's own commands
        (*command.split(), "--dry-run"), cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "-m" in done.stdout


@pytest.mark.parametrize(
    "document", docs.DOCUMENTS, ids=lambda document: str(document.relative_to(docs.ROOT))
)
def test_the_tables_are_what_the_code_says(document: Path) -> None:
    assert docs.written(document) == document.read_text(), "run make docs"


def test_every_file_that_the_readme_links_is_there() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text())

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
