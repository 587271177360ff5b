"""What a test can see of a service from the inside: its statements, metrics and log lines."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import REGISTRY
from sqlalchemy import event

from chassis.database import Database

LogLines = Callable[[], list[dict[str, Any]]]
"""The fixture `log_lines`: what was logged since the test began."""


@contextmanager
def statements_sent(database: Database) -> Iterator[list[str]]:
    """The SQL statements that are sent within the block, BEGIN and COMMIT left out."""
    sent: list[str] = []

    def record(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if not statement.startswith("BEGIN"):
            sent.append(statement)

    engines = {engine.sync_engine for engine in database.engines}
    for engine in engines:
        event.listen(engine, "before_cursor_execute", record)
    try:
        yield sent
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", record)


class Sample:
    """A sample of a metric in this process; `moved` is by how much since it was made."""

    def __init__(self, name: str, **labels: str) -> None:
        self._name = name
        self._labels = labels
        self._before = self.value

    @property
    def value(self) -> float:
        return REGISTRY.get_sample_value(self._name, self._labels) or 0.0

    @property
    def moved(self) -> float:
        return self.value - self._before
