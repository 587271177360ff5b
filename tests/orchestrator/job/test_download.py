"""A file of orders from an address, and a job that is killed in the middle and starts again with nothing."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientTimeout, web
from aiohttp.test_utils import TestServer

from orchestrator.job.download import FileUnreachable, address_of, download
from orchestrator.job.lines import FileUnusable
from tests.orchestrator.job.rows import HEADER
from tests.orchestrator.job.system import System, ended, until_said

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
ROWS = [f"R-{number},1,1,1" for number in range(20)]
CSV = "\n".join([HEADER, *ROWS]).encode()


def says(**response: Any) -> Answer:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(**response)

    return answer


class Files:
    """A server of files: `answer` is what it says."""

    def __init__(self) -> None:
        self.url = ""
        self.answer = says(body=CSV)


async def breaks_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(len(CSV))})
    await response.prepare(request)
    await response.write(CSV[:-5])
    assert request.transport is not None
    request.transport.close()
    return response


async def goes_round(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound(request.path)


async def leads_elsewhere(_request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("file:///etc/passwd")


async def never_ends(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 1000)


async def is_silent(_request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    raise AssertionError


@pytest.fixture
async def files() -> AsyncIterator[Files]:
    said = Files()
    app = web.Application()

    async def handle(request: web.Request) -> web.StreamResponse:
        return await said.answer(request)

    app.router.add_get("/{path:.*}", handle)
    async with TestServer(app) as server:
        said.url = str(server.make_url("/orders.csv"))
        yield said


async def fetch(files: Files, tmp_path: Path) -> bytes:
    address = address_of(files.url)
    assert address is not None
    with (tmp_path / "copy").open("w+b") as copy:
        await download(address, copy)
        copy.seek(0)
        return copy.read()


async def test_a_file_is_copied_whole_also_when_it_moved(files: Files, tmp_path: Path) -> None:
    async def moved(request: web.Request) -> web.StreamResponse:
        if request.path == "/orders.csv":
            raise web.HTTPFound("/there")
        return web.Response(body=CSV)

    files.answer = moved

    assert await fetch(files, tmp_path) == CSV


@pytest.mark.parametrize(
    ("answer", "fault", "said"),
    [
        (says(status=404), FileUnusable, "answered 404"),
        (says(status=403), FileUnusable, "answered 403"),
        (goes_round, FileUnusable, "redirects more than 5 times"),
        (leads_elsewhere, FileUnusable, "no address"),
        (never_ends, FileUnusable, "has more than 0 MiB; split it"),
        (says(body=b"x" * 5000), FileUnusable, "has more than 0 MiB; split it"),
        (says(status=503), FileUnreachable, "answered 503; try again later"),
        (says(status=429), FileUnreachable, "answered 429; try again later"),
        (breaks_off, FileUnreachable, "cannot be fetched (ClientPayloadError)"),
        (is_silent, FileUnreachable, "does not answer in time"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_what_cannot_be_had_is_said(  # noqa: PLR0917 - a row of the table
    files: Files,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer,
    fault: type[Exception],
    said: str,
) -> None:
    monkeypatch.setattr("orchestrator.job.download.MAX_FILE_BYTES", 4096)
    monkeypatch.setattr("orchestrator.job.download.TIMEOUT", ClientTimeout(total=5, sock_read=0.5))
    files.answer = answer

    with pytest.raises(fault) as raised:
        await fetch(files, tmp_path)

    assert said in str(raised.value)


async def test_an_address_keeps_its_secrets(files: Files, tmp_path: Path) -> None:
    files.answer = says(status=403)
    files.url = files.url.replace("http://", "http://user:secret-word@") + "?signature=secret-word"

    with pytest.raises(FileUnusable) as raised:
        await fetch(files, tmp_path)

    assert "/orders.csv answered 403" in str(raised.value)
    assert "secret-word" not in str(raised.value)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "evicted"])
async def test_a_job_that_is_ended_in_the_middle_goes_on_elsewhere_and_makes_every_order_once(
    system: System, files: Files, tmp_path: Path, end: signal.Signals
) -> None:
    system.gate.passes = 9
    system.gate.holds_answers = True
    first = await system.start(files.url, "--concurrency", "4", variables={"TMPDIR": str(tmp_path)})
    await system.gate.holds(4)

    first.send_signal(end)
    if end is signal.SIGTERM:
        await until_said(first, "stopping, 4 order(s) in flight")
        first.send_signal(end)  # so that the test need not wait for the answers
    stopped = await ended(first)
    await system.gate.open()
    again = await system.job(files.url)

    assert stopped.exit_code == (-signal.SIGKILL if end is signal.SIGKILL else 128 + signal.SIGTERM)
    assert again.exit_code == 0, again.err
    assert again.statuses == ["succeeded"] * len(ROWS)
    assert 9 <= sum(result["replayed"] for result in again.results) < len(ROWS)
    assert len(await system.all_orders()) == await system.sold() == len(ROWS)


async def test_a_job_whose_file_is_not_there_yet_is_tried_again_and_one_that_has_none_is_not(
    system: System, files: Files, nobody: str
) -> None:
    unreachable = await system.job(f"{nobody}/orders.csv")
    files.answer = says(status=404)
    missing = await system.job(files.url)

    assert (unreachable.exit_code, missing.exit_code) == (75, 2)
    assert unreachable.err.startswith(f"job: {nobody}/orders.csv cannot be fetched")
    assert "answered 404" in missing.err
    assert await system.all_orders() == []


async def test_what_begins_like_an_address_and_is_none_is_refused(system: System) -> None:
    done = await system.job("http://[::1")

    assert done.exit_code == 2
    assert "this is no address" in done.err


def test_an_address_has_a_host() -> None:
    with pytest.raises(FileUnusable, match="this is no address"):
        address_of("http:///orders.csv")


@pytest.mark.parametrize("host", ["a..example", "a" * 64 + ".example"])
async def test_a_host_with_a_name_that_none_can_have_is_refused(
    files: Files, tmp_path: Path, host: str
) -> None:
    files.url = f"http://{host}/orders.csv"

    with pytest.raises(FileUnusable, match="is no address"):
        await fetch(files, tmp_path)
