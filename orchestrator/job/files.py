"""A file of orders: JSON Lines, an order a line, or CSV.

JSON Lines is read once, and nothing of it is kept. CSV is read twice: whether the rows of an order
stand together must be known before the first one is ordered.
"""

import codecs
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator
from enum import StrEnum
from pathlib import PurePosixPath
from tempfile import TemporaryFile
from typing import BinaryIO

from pydantic_core import from_json

from orchestrator.job.lines import FileUnusable, Numbered, lines_of, read, text_of
from orchestrator.job.orders import BadRow, Order, validated
from orchestrator.job.table import find_apart, groups_of


class Form(StrEnum):
    """How a file writes its orders."""

    CSV = "csv"
    JSONL = "jsonl"


_FORMS = {".csv": Form.CSV, ".jsonl": Form.JSONL, ".ndjson": Form.JSONL}


def form_of(file: str) -> Form | None:
    """What the name of a file ends with."""
    return _FORMS.get(PurePosixPath(file).suffix.lower())


class OrderFile:
    """An open file of orders."""

    def __init__(self, file: BinaryIO, form: Form | None = None) -> None:
        self._file = file.fileno()
        self._form = form or form_of(str(file.name))
        self._start = file.tell() if file.seekable() else None
        status = os.fstat(self._file)
        self._size = status.st_size if stat.S_ISREG(status.st_mode) else 0
        self._done = 0

    @property
    def fraction(self) -> float | None:
        """How much of the file became rows, if it has a size."""
        return min(1, self._done / self._size) if self._size else None

    async def rows(self) -> AsyncGenerator[Order | BadRow, None]:
        """Everything in the file, in its order.

        Raises:
            FileUnusable: it is CSV without a proper header, or cannot be read.

        """
        try:
            head = await read(self._file)
            json = self._form is Form.JSONL or (
                self._form is None and head.removeprefix(codecs.BOM_UTF8)[:1] == b"{"
            )
            async for row in self._json_rows(head) if json else self._csv_rows(head):
                yield row
        except OSError as error:
            raise FileUnusable(f"the file cannot be read: {error.strerror}") from None

    async def _json_rows(self, head: bytes) -> AsyncIterator[Order | BadRow]:
        async for number, line in self._counted(lines_of(self._file, head)):
            if line is None or line.strip():
                yield _json_order(number, line)

    async def _csv_rows(self, head: bytes) -> AsyncIterator[Order | BadRow]:
        with TemporaryFile() as copy:  # of what cannot be read twice
            source, start, copied = self._file, self._start, None
            if start is None:
                source, start, copied = copy.fileno(), 0, copy
            apart = await find_apart(groups_of(lines_of(self._file, head, copied)))
            copy.flush()
            os.lseek(source, start, os.SEEK_SET)
            async for group in groups_of(self._counted(lines_of(source, await read(source)))):
                yield group if isinstance(group, BadRow) else group.order(apart)

    async def _counted(self, lines: Numbered) -> Numbered:
        async for number, line in lines:
            self._done += len(line or b"") + 1
            yield number, line


def _json_order(number: int, line: bytes | None) -> Order | BadRow:
    try:
        text = text_of(line)
    except ValueError as error:
        return BadRow(number, None, str(error))
    try:
        data = from_json(text)
    except ValueError as error:
        return BadRow(number, None, f"The line is no JSON: {error}.".replace("at line 1 column", "at column"))
    reference = data.get("reference") if isinstance(data, dict) else None
    return validated(number, reference if isinstance(reference, str) else None, data)
