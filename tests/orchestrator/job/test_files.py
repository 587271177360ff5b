import json
import os
from pathlib import Path

import pytest

from orchestrator.job.files import Form, OrderFile
from tests.orchestrator.job.rows import HEADER, order, rows_of, shown


async def test_json_lines_are_handed_on_as_they_come() -> None:
    reading, writing = os.pipe()
    second = json.dumps(order("B")).encode()
    with os.fdopen(reading, "rb") as file, os.fdopen(writing, "wb", buffering=0) as pipe:
        rows = OrderFile(file).rows()

        pipe.write(json.dumps(order("A")).encode() + b"\n" + second[:10])
        found = [await anext(rows)]
        pipe.write(second[10:] + b"\n")
        found.append(await anext(rows))
        await rows.aclose()

    assert [row.reference for row in found] == ["A", "B"]


@pytest.mark.parametrize("form", list(Form))
async def test_a_format_that_is_told_wins(tmp_path: Path, form: Form) -> None:
    path = tmp_path / ("orders.csv" if form is Form.JSONL else "orders.jsonl")
    path.write_text(json.dumps(order("A")) if form is Form.JSONL else f"{HEADER}\nA,1,1,1")

    with path.open("rb") as file:
        rows = await rows_of(file, form)

    assert shown(rows) == [(1 if form is Form.JSONL else 2, "A", [1])]
