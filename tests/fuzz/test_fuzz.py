"""What the OpenAPI documents promise, against what the services do. `make fuzz` looks for longer."""

import asyncio
import re
import time
from pathlib import Path

import aiohttp
import pytest

from dev import calls
from tests.fuzz.campaign import SCOPES, SERVICES, fuzz, shop
from tests.issuer import Issuer

SEED = 1


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_does_what_its_document_says(service: str, tmp_path: Path) -> None:
    async with shop(tmp_path) as services:
        result = await asyncio.to_thread(fuzz, getattr(services, service).url, seed=SEED)

    assert result.returncode == 0, result.stdout + result.stderr
    assert re.findall(r"✅ (Examples|Coverage|Fuzzing|Stateful)$", result.stdout, re.MULTILINE) == [
        "Examples",
        "Coverage",
        "Fuzzing",
        "Stateful",
    ]


async def test_who_may_call_is_what_the_document_says(tmp_path: Path, issuer: Issuer) -> None:
    """Among others that no operation does without the token that its document wants."""
    token = issuer.token(SCOPES, exp=int(time.time()) + 3600)
    async with shop(tmp_path, issuer=issuer) as services:
        url = services.orders.url
        result = await asyncio.to_thread(fuzz, url, seed=SEED, access_token=token, phases="examples,coverage")
        async with aiohttp.ClientSession(headers=issuer.bearer(SCOPES)) as http:
            orders = await calls.get(http, f"{url}/admin/orders/find-all")

    assert result.returncode == 0, result.stdout + result.stderr
    assert orders.json["data"]  # calls with the token came through
