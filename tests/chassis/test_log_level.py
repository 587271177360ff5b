import asyncio
import logging
from collections.abc import Iterator

import pytest
import structlog

from tests.client import Client
from tests.observed import LogLines


@pytest.fixture(autouse=True)
def level_of_the_tests() -> Iterator[None]:
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


def _say(level: str, log_lines: LogLines) -> bool:
    """Whether an event of this level is logged now."""
    getattr(structlog.get_logger("test"), level)("said")
    return any(line["event"] == "said" and line["level"] == level for line in log_lines())


async def test_the_level_is_shown_and_changed_while_the_service_runs(
    client: Client, log_lines: LogLines
) -> None:
    assert (await client.admin.get("/log-level")).json == {"level": "info"}
    assert not _say("debug", log_lines)

    changed = await client.admin.request("PUT", "/log-level", json={"level": "debug"})

    assert (changed.status, changed.json) == (200, {"level": "debug"})
    assert _say("debug", log_lines)


async def test_a_level_for_a_time_ends_by_itself(client: Client, log_lines: LogLines) -> None:
    await client.admin.request("PUT", "/log-level", json={"level": "error", "seconds": 0.2})
    assert not _say("warning", log_lines)

    async with asyncio.timeout(50):
        while (await client.admin.get("/log-level")).json != {"level": "info"}:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.05)

    assert _say("warning", log_lines)


async def test_a_later_change_is_not_ended_by_an_earlier_one(client: Client) -> None:
    await client.admin.request("PUT", "/log-level", json={"level": "error", "seconds": 0.1})
    await client.admin.request("PUT", "/log-level", json={"level": "warning"})

    await asyncio.sleep(0.3)

    assert (await client.admin.get("/log-level")).json == {"level": "warning"}


@pytest.mark.parametrize(
    "body",
    [{"level": "loud"}, {"level": "debug", "seconds": 0}, {"seconds": 5}, {"level": "info", "x": 1}, []],
)
async def test_what_is_no_level_changes_nothing(client: Client, body: object) -> None:
    reply = await client.admin.request("PUT", "/log-level", json=body)

    assert reply.status == 400
    assert reply.json["errors"]
    assert (await client.admin.get("/log-level")).json == {"level": "info"}
