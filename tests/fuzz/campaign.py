"""Schemathesis against one service: examples, coverage, fuzzing and chains of calls, valid data and not.

`schemathesis.toml` says what is checked, `hooks.py` what a valid request is beyond its schema. The other
services run as well, so that orders and sagas can come about, and there is something to order.
"""

import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from dev.sample import load
from dev.stack import ROOT, Stack, stack
from tests.databases import TOKEN
from tests.processes import environment

CONFIG = Path(__file__).with_name("schemathesis.toml")
SERVICES = ("customers", "orders", "orchestrator")


@dataclass(frozen=True, slots=True)
class Longer:
    """Examples an operation and phase; the last phases are repeated until the time is over."""

    examples: int
    seconds: int


@asynccontextmanager
async def shop(folder: Path, database_urls: Mapping[str, str] | None = None) -> AsyncIterator[Stack]:
    """The three services with a customer and products whose ids are 1 to 5."""
    given = {"SERVICE_TOKEN": TOKEN, "SYNCHRONIZE": "true", "AUTH": "off"}
    async with stack(folder, database_urls=database_urls, environment=given) as services:
        async with aiohttp.ClientSession() as http:
            await load(http, services)
        yield services


def fuzz(url: str, *, seed: int, longer: Longer | None = None) -> subprocess.CompletedProcess[str]:
    """Run all phases, with as many examples as the configuration has unless it should take longer.

    The exit code is 1 if anything failed; the output names what, and the call that repeats it.
    """
    bounds = (
        ("--max-examples", str(longer.examples), "--max-time", str(longer.seconds))
        if longer is not None
        else ()
    )
    command = (sys.executable, "-m", "schemathesis.cli", "--no-color", "--config-file", str(CONFIG), "run")
    return subprocess.run(  # noqa: S603 - our own command
        (*command, f"{url}/openapi.json", "--seed", str(seed), *bounds),
        cwd=ROOT,
        env=environment(SERVICE_TOKEN=TOKEN),
        capture_output=True,
        text=True,
        check=False,
    )
