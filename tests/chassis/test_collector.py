"""A collector that is silent or refuses: requests do not notice, the end waits but little, losses count."""

import asyncio
import re
import socket
from collections.abc import Iterator
from contextlib import closing

import aiohttp
import pytest
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor

from customers.settings import Settings
from tests.client import HOST, Client
from tests.databases import SQLite
from tests.processes import serving, variables

REQUESTS = 40
COUNTED = re.compile(r'^b2b_spans_total\{result="(\w+)"\} (\S+)$', re.MULTILINE)
END_SECONDS = 20
"""Less than the half minute for which the SDK would wait, more than a slow machine needs."""


@pytest.fixture(params=["silent", "refusing"])
def endpoint(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where nobody takes spans: connections are accepted and never answered, or refused."""
    with closing(socket.socket()) as listener:
        listener.bind((HOST, 0))
        if request.param == "silent":
            listener.listen(128)
        yield f"http://{HOST}:{listener.getsockname()[1]}"


async def test_a_collector_that_takes_nothing_holds_nobody_up(
    endpoint: str, sqlite: SQLite, tmp_path_factory: pytest.TempPathFactory
) -> None:
    told = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_BSP_MAX_QUEUE_SIZE": "20",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1",
    }
    url = sqlite.fresh(Settings, tmp_path_factory.mktemp("collector"))
    async with serving("customers", {**variables(url, log_format="json"), **told}) as process:
        port, admin_port = await process.ports()
        async with aiohttp.ClientSession() as session:
            AioHttpClientInstrumentor.uninstrument_session(session)  # a caller is none of our services
            client, admin = Client(session, port), Client(session, admin_port)

            replies = await asyncio.gather(
                *(client.get("/admin/customers/find-all") for _ in range(REQUESTS))
            )

            assert {reply.status for reply in replies} == {200}
            metrics = (await admin.get("/metrics")).text
            lost = {
                result: float(value)
                for result, value in re.findall(
                    r'^b2b_spans_total\{result="(\w+)"\} (\S+)$', metrics, re.MULTILINE
                )
            }
            assert lost["exported"] == 0
            assert lost["dropped"] > 0
        process.terminate()
        async with asyncio.timeout(END_SECONDS):
            assert await process.ended() == 0
        assert any(line["event"] == "spans lost at the end" for line in process.lines)
