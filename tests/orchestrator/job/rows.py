"""The orders of a job: files of them, and what is read from files."""

import json
from pathlib import Path
from typing import Any, BinaryIO

from orchestrator.job.files import Form, OrderFile
from orchestrator.job.orders import BadRow, Order

HEADER = "reference,customer_id,product_id,qty"


def csv_of(folder: Path, *rows: str, header: str = HEADER) -> Path:
    file = folder / "orders.csv"
    file.write_text("\n".join([header, *rows, ""]))
    return file


def jsonl_of(folder: Path, *orders: dict[str, Any] | str) -> Path:
    file = folder / "orders.jsonl"
    lines = [order if isinstance(order, str) else json.dumps(order) for order in orders]
    file.write_text("\n".join([*lines, ""]))
    return file


def order(reference: Any, qty: int = 1, **fields: Any) -> dict[str, Any]:
    return {"reference": reference, "customer_id": 1, "items": [{"product_id": 1, "qty": qty}], **fields}


async def rows_of(file: BinaryIO, form: Form | None = None) -> list[Order | BadRow]:
    return [row async for row in OrderFile(file, form).rows()]


async def read(tmp_path: Path, content: str | bytes, name: str = "orders.csv") -> list[Order | BadRow]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with path.open("rb") as file:
        return await rows_of(file)


def shown(rows: list[Order | BadRow]) -> list[Any]:
    """The rows as line and reference, with the quantities or the fault."""
    return [
        (row.line, row.reference, row.fault)
        if isinstance(row, BadRow)
        else (row.line, row.reference, [item.qty for item in row.content.items])
        for row in rows
    ]
