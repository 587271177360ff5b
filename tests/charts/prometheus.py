"""A real Prometheus that scrapes real services, from Debian's package."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from dev.debian import unpacked
from dev.ports import HOST, reserved
from dev.stack import Stack

START_SECONDS = 60


def program(name: str) -> str:
    """The path of a program of the package: prometheus or promtool."""
    return str(unpacked("prometheus") / "usr" / "bin" / name)


class Prometheus:
    """The server at an address; it answers PromQL."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self.url = url

    async def query(self, expression: str) -> list[Any]:
        """The series of an instant vector, each with `metric` and `value`."""
        found: list[Any] = (await self._get("query", {"query": expression}))["result"]
        return found

    async def exemplars(self, expression: str, start: float, end: float) -> list[Any]:
        """The exemplars of these series, each with `labels` and `value`."""
        parameters = {"query": expression, "start": str(start), "end": str(end)}
        found = await self._get("query_exemplars", parameters)
        return [exemplar for series in found for exemplar in series["exemplars"]]

    async def alerts(self) -> dict[str, str]:
        """The alerts that are pending or firing, and which of the two."""
        found = await self._get("alerts", {})
        return {alert["labels"]["alertname"]: alert["state"] for alert in found["alerts"]}

    async def _get(self, what: str, parameters: Mapping[str, str]) -> Any:
        async with self._http.get(f"{self.url}/api/v1/{what}", params=parameters) as response:
            answer = await response.json()
        assert answer["status"] == "success", answer
        return answer["data"]


@asynccontextmanager
async def prometheus(folder: Path, services: Stack, rules: Sequence[Path]) -> AsyncIterator[Prometheus]:
    """Scrape these services every second until the block ends, with these files of rules."""
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(file) for file in rules],
        "scrape_configs": [
            {
                "job_name": service.name,
                "static_configs": [{"targets": [f"{HOST}:{service.admin_port}"]}],
            }
            for service in services
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    async with running(folder) as server:
        yield server


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Prometheus]:
    """A server with the `prometheus.yml` of this folder, until the block ends."""
    with reserved() as port, (folder / "prometheus.log").open("wb") as log:
        server = subprocess.Popen(  # noqa: ASYNC220, S603 - our own command
            (
                program("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'prometheus'}",
                f"--web.listen-address={HOST}:{port}",
                "--enable-feature=exemplar-storage",
            ),
            stdout=log,
            stderr=log,
        )
        try:
            async with aiohttp.ClientSession() as http:
                url = f"http://{HOST}:{port}"
                await _ready(http, url)
                yield Prometheus(http, url)
        finally:
            server.terminate()
            server.wait()


async def _ready(http: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(START_SECONDS):
        while True:
            try:
                async with http.get(f"{url}/-/ready") as response:
                    if response.ok:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
