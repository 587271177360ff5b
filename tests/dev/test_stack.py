import socket
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from dev.calls import get
from dev.ports import HOST, is_free
from dev.sample import load
from dev.stack import PORTS, ServiceFailed, chosen_ports, stack


async def test_a_killed_service_starts_again_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://nobody@192.0.2.1/not_to_be_touched")

    async with stack(tmp_path) as services, aiohttp.ClientSession() as http:
        before = await load(http, services)
        await services.orders.kill()
        with pytest.raises(aiohttp.ClientConnectionError):
            await get(http, f"{services.orders.url}/health")
        await services.orders.start()

        assert await load(http, services) == before
        running = [service.process for service in services]

    assert [process.returncode for process in running if process is not None] == [0, 0, 0]


async def test_a_service_that_cannot_start_is_named_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(ServiceFailed, match=r"(?s)customers did not start.*LOG_LEVEL: got 'loud'"):
        async with stack(tmp_path, environment={"LOG_LEVEL": "loud"}):
            pytest.fail("the services started")


@pytest.mark.xdist_group("default ports")
def test_a_default_port_that_is_taken_is_avoided() -> None:
    public, admin = PORTS["orders"]
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # taken by somebody else is as good
            taken.bind((HOST, public))
            taken.listen()

        with chosen_ports("default-if-free") as chosen:
            assert public not in chosen["orders"]
            assert chosen["orders"][1] == admin or not is_free(admin)
            assert len({port for pair in chosen.values() for port in pair}) == 6
