"""Orders from CSV: an item a row, the rows of an order stand together.

No order is made of less than its file says. So a row that cannot be read spoils the orders right
before and right after it, as it may be part of either, and a reference whose rows stand apart is
refused as a whole.
"""

import csv
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from orchestrator.job.lines import FileUnusable, Numbered, text_of
from orchestrator.job.orders import BadRow, Order, validated
from orchestrator.schemas import MAX_ITEMS

REQUIRED = ("reference", "customer_id", "product_id", "qty")
OPTIONAL = ("purchase_order_number", "correlation_id")


@dataclass(slots=True)
class Group:
    """Rows that stand together and have the same reference."""

    cells: dict[str, str]
    lines: list[int] = field(default_factory=list)
    items: list[dict[str, Any]] = field(default_factory=list)
    fault: str | None = None

    @property
    def reference(self) -> str:
        """What the rows have in common."""
        return self.cells["reference"]

    def add(self, number: int, cells: dict[str, str]) -> None:
        """Take one more row."""
        for name in ("customer_id", *OPTIONAL):
            if cells.get(name) != self.cells.get(name):
                self.fault = f"Line {number} has another {name} than line {self.lines[0]}."
        if len(self.items) <= MAX_ITEMS:  # one more than is allowed, so that it is refused
            self.lines.append(number)
            self.items.append({name: _number(cells[name]) for name in ("product_id", "qty")})

    def order(self, apart: set[str]) -> Order | BadRow:
        """What the rows say together; `apart` has the references that are refused."""
        line = self.lines[0]
        if self.reference in apart:
            fault = "The rows of this reference do not stand together; none of them was ordered."
            return BadRow(line, self.reference, fault)
        if self.fault is not None:
            return BadRow(line, self.reference, self.fault)
        texts = {name: self.cells[name] for name in ("reference", *OPTIONAL) if self.cells.get(name)}
        data = {**texts, "customer_id": _number(self.cells["customer_id"]), "items": self.items}
        return validated(line, self.reference, data, self.lines)


async def find_apart(groups: AsyncIterator[Group | BadRow]) -> set[str]:
    """The references that come again after other rows."""
    seen: set[str] = set()
    apart: set[str] = set()
    async for group in groups:
        if isinstance(group, Group):
            (apart if group.reference in seen else seen).add(group.reference)
    return apart


async def groups_of(lines: Numbered) -> AsyncIterator[Group | BadRow]:
    """Rows by reference, as they stand; a row that cannot be read ends a group.

    Raises:
        FileUnusable: the header does not say what the columns are.

    """
    group: Group | None = None
    table: _Table | None = None
    unreadable = 0
    async for number, line in lines:
        if table is None:
            table = _Table(line)
            continue
        try:
            cells = table.cells(line)
        except ValueError as error:
            if group is not None:
                group.fault = f"Line {number} cannot be read and may belong to this order."
                yield group
            yield BadRow(number, None, str(error))
            group, unreadable = None, number
            continue
        if not cells:
            continue
        if group is None or group.reference != cells["reference"]:
            if group is not None:
                yield group
            group = Group(cells)
            if unreadable:
                group.fault = f"Line {unreadable} cannot be read and may belong to this order."
                unreadable = 0
        group.add(number, cells)
    if group is not None:
        yield group


class _Table:
    """What the header says: the delimiter and the columns."""

    def __init__(self, header: bytes | None) -> None:
        try:
            text = text_of(header)
            self._delimiter = ";" if text.count(";") > text.count(",") else ","
            self._columns = [name.lower() for name in self._split(text)]
        except ValueError as error:
            raise FileUnusable(f"the header of the CSV cannot be read: {error}") from None
        missing = [name for name in REQUIRED if name not in self._columns]
        unknown = [name for name in self._columns if name not in (*REQUIRED, *OPTIONAL)]
        twice = {name for name in self._columns if self._columns.count(name) > 1}
        for fault, names in (("lacks", missing), ("has unknown", unknown), ("repeats", sorted(twice))):
            if names:
                raise FileUnusable(f"the header of the CSV {fault} {', '.join(map(repr, names))}")

    def cells(self, line: bytes | None) -> dict[str, str]:
        """The cells of a row by column, none if it is empty. No cell goes over the end of its line."""
        row = self._split(text_of(line))
        if not any(row):
            return {}
        if len(row) != len(self._columns):
            raise ValueError(f"The row has {len(row)} cells, the header has {len(self._columns)}.")
        cells = dict(zip(self._columns, row, strict=True))
        if not cells["reference"]:
            raise ValueError("The row has no reference.")
        return cells

    def _split(self, text: str) -> list[str]:
        try:
            (row,) = csv.reader([text or self._delimiter], delimiter=self._delimiter, strict=True)
        except csv.Error as error:
            raise ValueError(f"The row is no CSV: {error}.") from None
        return [cell.strip() for cell in row]


def _number(cell: str) -> int | str:
    """The cell as an integer; anything else is left to be refused by the schema."""
    return int(cell) if re.fullmatch(r"[0-9]{1,19}", cell) else cell
