import asyncio
import os
import signal
from pathlib import Path

from tests.orchestrator.job.rows import jsonl_of, order
from tests.orchestrator.job.system import System, ended, until_said


async def test_progress_is_lines_where_there_is_no_terminal(system: System, tmp_path: Path) -> None:
    done = await system.job(jsonl_of(tmp_path, order("A"), order("B")))

    lines = done.err.splitlines()
    assert all(line.startswith("job: ") for line in lines)
    assert lines[0] == "job: 100% of the file, 2 order(s): 2 succeeded"
    assert lines[-1].startswith("job: finished after ")
    assert lines[-1].endswith(": 2 order(s): 2 succeeded")


async def test_progress_says_what_is_waited_for(system: System, nobody: str, tmp_path: Path) -> None:
    process = await system.start(jsonl_of(tmp_path, order("A")), "--url", nobody)

    said = await until_said(process, "to be tried again")
    process.send_signal(signal.SIGTERM)
    await ended(process)

    assert f"0 order(s); 1 in flight, 1 to be tried again: {nobody} cannot be reached." in said


async def test_progress_is_a_bar_on_a_terminal(system: System, tmp_path: Path) -> None:
    terminal, its_end = os.openpty()
    try:
        process = await system.start(
            jsonl_of(tmp_path, order("A"), "{"), stderr=its_end, variables={"TERM": "xterm", "COLUMNS": "200"}
        )
    finally:
        os.close(its_end)
    shown, done = await asyncio.gather(asyncio.to_thread(read_all, terminal), ended(process))

    assert done.statuses == ["succeeded", "invalid"]
    assert "100%" in shown
    assert "2 order(s): 1 succeeded, 1 invalid" in shown
    assert "line 2 invalid: The line is no JSON" in shown
    assert "job:" not in shown


def read_all(terminal: int) -> str:
    """What a terminal is shown until its other end is closed, which Linux reports as an error."""
    shown = b""
    with os.fdopen(terminal, "rb", buffering=0) as stream:
        while True:
            try:
                chunk = stream.read(65536)
            except OSError:
                chunk = b""
            if not chunk:
                return shown.decode()
            shown += chunk
