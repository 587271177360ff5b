import asyncio
import json
import signal
from pathlib import Path

import pytest

from orchestrator.job.client import connected
from orchestrator.job.files import OrderFile
from orchestrator.job.runner import Job
from tests.orchestrator.job.rows import csv_of, jsonl_of, order
from tests.orchestrator.job.system import STOCK, Said, System, ended, until_said


async def test_run_again_it_repeats_nothing(system: System, tmp_path: Path) -> None:
    rows = [f"A-{number},1,1,1" for number in range(10)]
    first = await system.run(csv_of(tmp_path, *rows))
    moved = tmp_path / "moved"
    moved.mkdir()

    # Under another name, in another order and in the other format it is still the same orders.
    again = await system.run(csv_of(moved, *reversed(rows)))
    other = await system.run(jsonl_of(tmp_path, *(order(f"A-{number}") for number in range(10))))

    assert [done.exit_code for done in (first, again, other)] == [0, 0, 0]
    assert set(first.of("replayed")) == {(False,)}
    assert set(again.of("replayed")) == set(other.of("replayed")) == {(True,)}
    assert sorted(again.of("reference", "order_id")) == sorted(first.of("reference", "order_id"))
    assert other.of("reference", "order_id") == first.of("reference", "order_id")
    assert await system.sold() == len(await system.all_orders()) == 10


async def test_what_succeeds_and_what_does_not_is_told_apart(system: System, tmp_path: Path) -> None:
    short = order("short", STOCK + 1)
    unknown = order("unknown") | {"customer_id": 99}
    file = jsonl_of(tmp_path, order("good"), short, unknown, "{", order("bad", 0), order("last"))

    done = await system.run(file)

    assert done.exit_code == 1
    assert done.of("line", "reference", "status", "code") == [
        (1, "good", "succeeded", None),
        (2, "short", "refused", "stock.insufficient"),
        (3, "unknown", "refused", "customer.not_found"),
        (4, None, "invalid", "row.invalid"),
        (5, "bad", "invalid", "row.invalid"),
        (6, "last", "succeeded", None),
    ]
    assert "6 order(s): 2 succeeded, 2 refused, 2 invalid" in done.err
    assert "line 2 (short) refused: There is not enough stock." in done.err
    assert "line 4 invalid: The line is no JSON" in done.err
    assert "line 5 (bad) invalid: items.0.qty: Input should be greater than or equal to 1." in done.err
    assert len(await system.all_orders()) == 2


async def test_a_refusal_is_final(system: System, tmp_path: Path) -> None:
    file = jsonl_of(tmp_path, order("A", STOCK + 1))
    await system.run(file)
    await system.orders.post("/admin/products/1/adjust-stock", {"delta": 1, "reason": "Found one"})

    again = await system.run(file)
    renamed = await system.run(jsonl_of(tmp_path, order("A-again", STOCK + 1)))

    assert again.of("status", "replayed") == [("refused", True)]
    assert renamed.of("status", "replayed") == [("succeeded", False)]


async def test_a_reference_twice_is_one_order_or_a_fault(system: System, tmp_path: Path) -> None:
    file = jsonl_of(tmp_path, order("A"), order("A"), order("A", 5))

    done = await system.run(file)

    assert done.exit_code == 1
    assert done.of("line", "status", "replayed", "code") == [
        (1, "succeeded", False, None),
        (2, "succeeded", True, None),
        (3, "invalid", False, "idempotency.key_reused"),
    ]
    assert done.results[2]["detail"] == "The reference was used before, for an order with other content."
    assert done.results[0]["order_id"] == done.results[1]["order_id"]
    assert await system.sold() == 1


async def test_of_two_orders_with_one_reference_the_first_is_first(system: System, tmp_path: Path) -> None:
    results: list[str] = []
    display = Said()
    system.gate.passes = 0
    with jsonl_of(tmp_path, order("A"), order("A", 5)).open("rb") as opened:
        async with connected(system.url, 120) as orchestrator:
            job = Job(OrderFile(opened), orchestrator, 8, results.append, display)
            running = asyncio.create_task(job.run())
            await system.gate.holds(1)

            job.stop(signal.SIGTERM)
            await system.gate.open()
            exit_code = await running

    assert exit_code == 143
    assert display.lines[0] == "stopping, 1 order(s) in flight"
    assert [json.loads(result)["line"] for result in results] == [1]


@pytest.mark.parametrize("reference", ["Größe 17", "x" * 252, "x" * 1000, "with space"])
async def test_a_reference_that_is_no_key_is_known_again(
    system: System, tmp_path: Path, reference: str
) -> None:
    file = jsonl_of(tmp_path, order(reference))

    done, again = await system.run(file), await system.run(file)

    assert done.of("reference", "status", "replayed") == [(reference, "succeeded", False)]
    assert again.of("reference", "status", "replayed") == [(reference, "succeeded", True)]


@pytest.mark.parametrize("when", ["before the work", "before the answer"])
async def test_killed_in_the_middle_and_run_again_there_is_one_order_a_reference(
    system: System, tmp_path: Path, when: str
) -> None:
    system.gate.passes, system.gate.holds_answers = 5, when == "before the answer"
    file = jsonl_of(tmp_path, *(order(f"A-{number}") for number in range(12)))
    process = await system.start(file, "--concurrency", 4)
    await system.gate.holds(4)

    process.kill()
    killed = await ended(process)
    await system.gate.open()
    again = await system.job(file)

    assert killed.exit_code == -signal.SIGKILL
    assert killed.statuses == ["succeeded"] * 5
    assert again.exit_code == 0, again.err
    assert again.statuses == ["succeeded"] * 12
    assert sum(replayed for (replayed,) in again.of("replayed")) >= 5
    assert len({order_id for (order_id,) in again.of("order_id")}) == 12
    assert await system.sold() == len(await system.all_orders()) == 12


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_takes_no_more_orders_and_waits_for_those_in_flight(
    system: System, tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    system.gate.passes = 5
    file = jsonl_of(tmp_path, *(order(f"A-{number}") for number in range(12)))
    process = await system.start(file, "--concurrency", 4)
    await system.gate.holds(4)

    process.send_signal(number)
    said = await until_said(process, "stopping, 4 order(s) in flight")
    await system.gate.open()
    stopped = await ended(process)

    assert stopped.exit_code == exit_code, said + stopped.err
    assert stopped.statuses == ["succeeded"] * 9
    assert "stopped after" in stopped.err
    assert "9 order(s): 9 succeeded" in stopped.err
    assert await system.sold() == 9


async def test_a_second_signal_does_not_wait(system: System, tmp_path: Path) -> None:
    system.gate.passes = 2
    file = jsonl_of(tmp_path, *(order(f"A-{number}") for number in range(6)))
    process = await system.start(file, "--concurrency", 2)
    await system.gate.holds(2)

    process.send_signal(signal.SIGINT)
    await until_said(process, "stopping, 2 order(s) in flight")
    process.send_signal(signal.SIGINT)
    stopped = await ended(process)
    await system.gate.open()
    again = await system.job(file)

    assert stopped.exit_code == 130
    assert (
        sorted(stopped.of("status", "code"))
        == [("succeeded", None)] * 2 + [("unfinished", "job.interrupted")] * 2
    )
    assert again.statuses == ["succeeded"] * 6
    assert await system.sold() == 6
