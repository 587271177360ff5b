"""What the services log while something is broken."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.faults.run import Run

INVARIANT = "nothing_fails_unforeseen"


@asynccontextmanager
async def unforeseen(run: Run) -> AsyncIterator[None]:
    """Errors in the logs of the services are violations: a fault from outside is never a bug of theirs."""
    logs = [service.log_file for service in run.world.services]
    before = {log: log.stat().st_size for log in logs}
    yield
    for log in {*logs, *(replica.log_file for replica in run.world.replicas)}:
        for line in log.read_bytes()[before.get(log, 0) :].splitlines():
            if b'"level":"error"' in line.replace(b": ", b":"):
                said = json.loads(line)
                reason = said.get("exception", "").strip().rpartition("\n")[2]
                run.violated(INVARIANT, f"{said['service.name']}: {said['event']}: {reason[:200]}")
