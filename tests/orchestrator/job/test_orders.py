import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.job.lines import MAX_LINE_BYTES
from orchestrator.job.orders import BadRow, Order
from tests.orchestrator.job.rows import order, read


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "The line is no JSON: EOF while parsing an object at column 1."),
        ("[]", "Input should be a valid dictionary or instance of FileOrder."),
        (b"\xff", "The line is not UTF-8."),
        (" " * (MAX_LINE_BYTES + 1), f"The line has more than {MAX_LINE_BYTES} bytes."),
        (order("B", customer_id="1"), "customer_id: Input should be a valid integer."),
        (order(17), "reference: Input should be a valid string."),
        (order("B", price=1), "price: Extra inputs are not permitted."),
        (order("B", idempotency_key="k"), "idempotency_key: Input should be None."),
        (order("B", items=[]), "items: List should have at least 1 item after validation, not 0."),
        (order(" "), "reference: String should have at least 1 character."),
    ],
)
async def test_a_bad_json_line_says_why_and_harms_no_other(tmp_path: Path, line: Any, fault: str) -> None:
    text = line if isinstance(line, str | bytes) else json.dumps(line)
    bad = text if isinstance(text, bytes) else text.encode()

    rows = await read(
        tmp_path,
        b"\n".join([json.dumps(order("A")).encode(), bad, json.dumps(order("C")).encode()]),
        "orders.jsonl",
    )

    assert [row.line for row in rows] == [1, 2, 3]
    assert [row.reference for row in rows if isinstance(row, Order)] == ["A", "C"]
    assert [row.fault for row in rows if isinstance(row, BadRow)] == [fault]


async def test_keys_depend_on_the_reference_alone(tmp_path: Path) -> None:
    references = ["A-17", "a-17", "A 17", "x" * 251, "x" * 252, "Größe"]
    rows = await read(tmp_path, "\n".join(json.dumps(order(each)) for each in references), "orders.jsonl")

    keys = [row.key for row in rows if isinstance(row, Order)]

    assert keys[:2] == ["job:A-17", "job:a-17"]
    assert keys[3] == "job:" + "x" * 251
    assert len(set(keys)) == len(references)
    assert all(len(key) <= 255 and key.isascii() and " " not in key for key in keys)
