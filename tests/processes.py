"""Services in processes of their own, as operators run them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from tests.databases import ROOT, on_database


def environment(**variables: str) -> dict[str, str]:
    """An environment with these variables and nothing that the tests' own has set."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": os.environ.get("HOME", "/"), **variables}


def variables(url: str, **overrides: object) -> dict[str, str]:
    """The variables that give a service this database and free ports."""
    return {name.upper(): str(value) for name, value in {**on_database(url), **overrides}.items()}


def start(service: str, *arguments: str, **given: str) -> subprocess.Popen[str]:
    """Start `python -m service arguments` with these environment variables."""
    return subprocess.Popen(  # noqa: S603 - our own commands
        [sys.executable, "-m", service, *arguments],
        cwd=ROOT,
        env=environment(**given),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(service: str, *arguments: str, **given: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m service arguments` to its end."""
    with start(service, *arguments, **given) as process:
        stdout, stderr = process.communicate()
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)


class ServiceProcess:
    """A running `python -m service serve`; `lines` are its log lines so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.lines: list[dict[str, Any]] = []
        self._process = process
        self._serving: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read())

    async def ports(self) -> tuple[int, int]:
        """The public and the admin port, once it serves."""
        serving = await asyncio.shield(self._serving)
        return serving["port"], serving["admin_port"]

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def terminate(self) -> None:
        """Ask it to end, as Kubernetes does."""
        self._process.send_signal(signal.SIGTERM)

    async def ended(self) -> int:
        """Wait for its end; return the exit code."""
        await self._reading
        return await self._process.wait()

    async def kill(self) -> None:
        """End it at once, if it still runs."""
        if self._process.returncode is None:
            self._process.kill()
        await self.ended()

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self.lines.append(json.loads(line))
            if self.lines[-1]["event"] == "serving":
                self._serving.set_result(self.lines[-1])
        if not self._serving.done():
            self._serving.set_exception(AssertionError(f"it ended without serving: {self.lines}"))


@asynccontextmanager
async def serving(service: str, given: Mapping[str, str]) -> AsyncIterator[ServiceProcess]:
    """A service in a process of its own."""
    process = ServiceProcess(
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            service,
            "serve",
            cwd=ROOT,
            env=environment(**given),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    )
    try:
        await process.ports()
        yield process
    finally:
        await process.kill()
