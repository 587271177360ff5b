"""What the OpenAPI documents promise, against what the services do. `make fuzz` looks for longer."""

import asyncio
import re
from pathlib import Path

import pytest

from tests.fuzz.campaign import SERVICES, fuzz, shop

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
