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
from tests.issuer import Issuer
from tests.processes import environment

CONFIG = Path(__file__).with_name("schemathesis.toml")
SERVICES = ("customers", "orders", "orchestrator")
SCOPES = "customers:read customers:write products:read products:write orders:read orders:write"


@dataclass(frozen=True, slots=True)
class Longer:
    """Examples an operation and phase; the last phases are repeated until the time is over."""

    examples: int
    seconds: int


@asynccontextmanager
async def shop(
    folder: Path, database_urls: Mapping[str, str] | None = None, issuer: Issuer | None = None
) -> AsyncIterator[Stack]:
    """The three services with a customer and products whose ids are 1 to 5.

    With an issuer, they want its tokens.
    """
    given = {"SERVICE_TOKEN": TOKEN, "SYNCHRONIZE": "true", "AUTH": "off"}
    if issuer is not None:
        given |= {name.upper(): value for name, value in issuer.settings().items()}
    headers = issuer.bearer(SCOPES) if issuer is not None else {}
    async with stack(folder, database_urls=database_urls, environment=given) as services:
        async with aiohttp.ClientSession(headers=headers) as http:
            await load(http, services)
        yield services


def fuzz(
    url: str, *, seed: int, longer: Longer | None = None, access_token: str = "", phases: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the phases, all unless they are named, with the configuration's number of examples or with more.

    The exit code is 1 if anything failed; the output names what, and the call that repeats it.
    """
    bounds = (
        ("--max-examples", str(longer.examples), "--max-time", str(longer.seconds))
        if longer is not None
        else ()
    )
    chosen = ("--phases", phases) if phases else ()
    command = (sys.executable, "-m", "schemathesis.cli", "--no-color", "--config-file", str(CONFIG), "run")
    return subprocess.run(  # noqa: S603 - our own command
        (*command, f"{url}/openapi.json", "--seed", str(seed), *bounds, *chosen),
        cwd=ROOT,
        env=environment(SERVICE_TOKEN=TOKEN, ACCESS_TOKEN=access_token),
        capture_output=True,
        text=True,
        check=False,
    )
