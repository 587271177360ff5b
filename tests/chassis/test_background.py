import asyncio

from aiohttp import web

from chassis import background, correlation
from chassis.errors import DatabaseUnavailable, PoolExhausted
from tests.observed import LogLines


async def _run(app: web.Application, turns: "asyncio.Queue[None]", wanted: int) -> None:
    """Start the app, wait for some turns of its work, stop it."""
    runner = web.AppRunner(app)
    await runner.setup()
    for _ in range(wanted):
        await turns.get()
    await runner.cleanup()


async def test_work_is_repeated_until_the_service_stops() -> None:
    turns: asyncio.Queue[None] = asyncio.Queue()
    app = web.Application()

    async def work(given: web.Application) -> None:
        assert given is app
        await turns.put(None)

    app.cleanup_ctx.append(background.every(0.001, "tidy up", work))
    await _run(app, turns, wanted=3)

    left = turns.qsize()
    await asyncio.sleep(0.01)
    assert turns.qsize() == left


async def test_a_failure_is_logged_and_the_next_turn_comes(log_lines: LogLines) -> None:
    turns: asyncio.Queue[None] = asyncio.Queue()
    failures: list[Exception] = [DatabaseUnavailable("It is down."), RuntimeError("a bug")]
    app = web.Application()

    async def work(_app: web.Application) -> None:
        await turns.put(None)
        if failures:
            raise failures.pop(0)

    app.cleanup_ctx.append(background.every(0.001, "tidy up", work))
    await _run(app, turns, wanted=3)

    expected, bug = log_lines()
    assert (expected["level"], expected["work"], expected["error.code"]) == (
        "warning",
        "tidy up",
        "db.unavailable",
    )
    assert (bug["level"], bug["work"]) == ("error", "tidy up")
    assert "RuntimeError: a bug" in bug["exception"]


async def test_a_problem_that_lasts_is_logged_once(log_lines: LogLines) -> None:
    turns: asyncio.Queue[None] = asyncio.Queue()
    down, well = DatabaseUnavailable("It is down."), None
    outcomes = [down, down, down, PoolExhausted("It is busy."), well, PoolExhausted("It is busy.")]
    app = web.Application()

    async def work(_app: web.Application) -> None:
        await turns.put(None)
        if outcomes and (outcome := outcomes.pop(0)) is not None:
            raise outcome

    app.cleanup_ctx.append(background.every(0.001, "tidy up", work))
    await _run(app, turns, wanted=7)

    codes = [line["error.code"] for line in log_lines()]
    assert codes == ["db.unavailable", "db.pool_exhausted", "db.pool_exhausted"]


async def test_each_turn_has_a_trace_of_its_own() -> None:
    turns: asyncio.Queue[None] = asyncio.Queue()
    seen: list[str] = []
    app = web.Application()

    async def work(_app: web.Application) -> None:
        seen.append(correlation.trace_id())
        await turns.put(None)

    app.cleanup_ctx.append(background.every(0.001, "tidy up", work))
    await _run(app, turns, wanted=3)

    assert len(set(seen)) == len(seen) >= 3
    assert "0" * 32 not in seen


async def test_work_in_progress_is_interrupted_when_the_service_stops() -> None:
    turns: asyncio.Queue[None] = asyncio.Queue()
    app = web.Application()

    async def work(_app: web.Application) -> None:
        await turns.put(None)
        await asyncio.sleep(3600)

    app.cleanup_ctx.append(background.every(0.001, "tidy up", work))
    await _run(app, turns, wanted=1)
