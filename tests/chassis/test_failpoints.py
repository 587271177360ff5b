import asyncio
import multiprocessing
import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from chassis import failpoints, settings
from chassis.failpoints import Failpoint, FailpointReached, Plan
from tests.chassis.sample import Settings
from tests.client import Client
from tests.processes import run, serving, variables

HERE = Failpoint("test.here", "A place of these tests.")
JOB = "/orchestrator/create-and-confirm-order"
THERE = Failpoint("test.there", "Another one.")


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


async def test_nothing_happens_where_nothing_is_planned() -> None:
    failpoints.arm("test.there=raise")

    await HERE()

    with pytest.raises(FailpointReached, match=r"test\.there"):
        await THERE()


async def test_what_is_planned_for_the_nth_time_happens_then_and_only_then() -> None:
    failpoints.arm("test.here=raise#2")

    await HERE()
    with pytest.raises(FailpointReached):
        await HERE()
    await HERE()


async def test_waiting_holds_up_nobody_else() -> None:
    failpoints.arm("test.here=wait(0.05)")
    waiting = asyncio.create_task(HERE())
    await asyncio.sleep(0)

    assert not waiting.done()
    await THERE()
    await waiting


def pass_here(plan: str) -> None:
    """The main of a process."""
    failpoints.arm(plan)
    asyncio.run(HERE())


def test_a_process_can_stop_itself_until_it_is_continued() -> None:
    process = multiprocessing.get_context("spawn").Process(target=pass_here, args=("test.here=stop",))
    process.start()
    assert process.pid is not None

    _, status = os.waitpid(process.pid, os.WUNTRACED)
    os.kill(process.pid, signal.SIGCONT)
    process.join()

    assert os.WSTOPSIG(status) == signal.SIGSTOP
    assert process.exitcode == 0


def test_several_places_are_separated_by_commas() -> None:
    assert failpoints.parse(" test.here=kill#12, test.there=wait(1.5),") == {
        "test.here": Plan("kill", nth=12),
        "test.there": Plan("wait", seconds=1.5),
    }
    assert failpoints.parse("") == {}


@pytest.mark.parametrize(
    "bad",
    ["test.here", "test.here=", "test.here=explode", "test.here=wait", "test.here=wait(x)",
     "test.here=kill#0", "test.here=kill#", "test.here=kill test.there=kill", "test.here=wait(-1)"],
)  # fmt: skip
def test_what_is_written_otherwise_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match=r"wants place=kill\|stop\|raise\|wait\(seconds\)"):
        failpoints.parse(bad)


@pytest.mark.parametrize(
    ("variables", "wants"),
    [
        ({"FAILPOINTS": "test.nowhere=kill"}, r"test\.nowhere is none of .*test\.here, test\.there"),
        (
            {"FAILPOINTS": "test.here=kill", "ENVIRONMENT": "production"},
            "wants nothing when ENVIRONMENT is production",
        ),
    ],
)
def test_a_place_that_is_not_there_and_a_place_of_production_stop_the_start(
    variables: dict[str, str],
    wants: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(SystemExit) as stopped:
        settings.load(Settings)

    assert stopped.value.code == 78
    _, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"  FAILPOINTS: got '{variables['FAILPOINTS']}', ")
    assert re.search(wants, line)


def test_a_service_knows_its_own_places_and_no_others() -> None:
    ended = run("orders", "serve", FAILPOINTS="confirm_order.unread=kill")

    assert ended.returncode == 78
    places = (
        "order_canceled.unanswered, order_confirmed.unanswered, order_created.unanswered, schema.migrated"
    )
    assert ended.stderr.endswith(f"confirm_order.unread is none of {places}\n")


async def test_a_process_that_fails_on_purpose_says_so_and_does_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'orchestrator.db'}"
    given = variables(url, synchronize=True, failpoints="request_parsed=kill#2", log_format="json")
    body = {"customer_id": 1, "items": [{"product_id": 1, "qty": 1}], "idempotency_key": "key-1"}

    async with serving("orchestrator", given) as process, aiohttp.ClientSession() as session:
        port, _ = await process.ports()
        client = Client(session, port)
        refused = await client.post(JOB, {**body, "items": []})
        assert refused.status == 400  # it does not get so far
        for _ in range(2):
            with suppress(aiohttp.ClientConnectionError):
                await client.post(
                    "/orchestrator/create-and-confirm-order", body, headers={"Prefer": "wait=0"}
                )

        assert await process.ended() == -signal.SIGKILL
        said = [line["failpoints"] for line in process.lines if "failpoints" in line]
        assert said == ["request_parsed=kill#2"]
