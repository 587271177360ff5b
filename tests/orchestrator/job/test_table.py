from pathlib import Path

import pytest

from orchestrator.job.lines import MAX_LINE_BYTES, FileUnusable
from orchestrator.job.orders import Order
from tests.orchestrator.job.rows import HEADER, read, shown


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("A,1,1", "The row has 3 cells, the header has 4."),
        ("A,1,1,1,1", "The row has 5 cells, the header has 4."),
        (",1,1,1", "The row has no reference."),
        ('"A,1,1,1', "The row is no CSV: unexpected end of data."),
        ('"A"B,1,1,1', "The row is no CSV: ',' expected after '\"'."),
        (b"\xff,1,1,1", "The line is not UTF-8."),
        ("A,1,1," + "1" * MAX_LINE_BYTES, f"The line has more than {MAX_LINE_BYTES} bytes."),
    ],
)
async def test_a_csv_row_that_cannot_be_read_spoils_the_orders_around_it(
    tmp_path: Path, row: str | bytes, fault: str
) -> None:
    bad = row if isinstance(row, bytes) else row.encode()

    rows = await read(
        tmp_path, f"{HEADER}\nX,1,1,1\nY,1,1,2\n".encode() + bad + b"\nZ,1,1,3\nZ,1,2,4\nW,1,1,5\n"
    )

    assert shown(rows) == [
        (2, "X", [1]),
        (3, "Y", "Line 4 cannot be read and may belong to this order."),
        (4, None, fault),
        (5, "Z", "Line 4 cannot be read and may belong to this order."),
        (7, "W", [5]),
    ]


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        (["A,1,1,x"], "Line 2, qty: Input should be a valid integer."),
        (["A,1,1,1", "A,1,2,0"], "Line 3, qty: Input should be greater than or equal to 1."),
        (["A,1,1,1", "", "A,1,1.0,1"], "Line 4, product_id: Input should be a valid integer."),
        (["A,-1,1,1"], "customer_id: Input should be a valid integer."),
        (["A,1,1,1", "A,2,2,1"], "Line 3 has another customer_id than line 2."),
        (
            ["A,1,1,600000", "A,1,1,600000"],
            "items: The lines of one product should add up to at most 1000000.",
        ),
        (
            [f"A,1,{number},1" for number in range(1, 300)],
            "items: List should have at most 200 items after validation, not 201.",
        ),
    ],
)
async def test_a_csv_order_that_is_wrong_says_where(tmp_path: Path, rows: list[str], fault: str) -> None:
    found = await read(tmp_path, "\n".join([HEADER, *rows, "B,1,1,1"]))

    assert shown(found) == [(2, "A", fault), (len(rows) + 2, "B", [1])]


async def test_csv_rows_that_stand_apart_order_nothing(tmp_path: Path) -> None:
    rows = await read(tmp_path, f"{HEADER}\nA,1,1,1\nB,1,1,2\nA,1,2,3\nC,1,1,4\n")

    apart = "The rows of this reference do not stand together; none of them was ordered."
    assert shown(rows) == [(2, "A", apart), (3, "B", [2]), (4, "A", apart), (5, "C", [4])]


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        ("reference;customer_id;qty", "the header of the CSV lacks 'product_id'"),
        (f"{HEADER},price", "the header of the CSV has unknown 'price'"),
        (f"{HEADER},qty", "the header of the CSV repeats 'qty'"),
        ("\xff\xfer\x00".encode("latin-1"), "the header of the CSV cannot be read: The line is not UTF-8."),
    ],
)
async def test_a_csv_header_must_say_what_the_columns_are(
    tmp_path: Path, header: str | bytes, fault: str
) -> None:
    content = header if isinstance(header, bytes) else f"{header}\nA;1;1;1\n"

    with pytest.raises(FileUnusable) as refused:
        await read(tmp_path, content)

    assert str(refused.value) == fault


async def test_csv_columns_stand_in_any_order_and_cells_may_be_quoted(tmp_path: Path) -> None:
    header = 'QTY; Product_Id ;purchase_order_number;customer_id;"reference"'

    rows = await read(tmp_path, f'{header}\n2;1;;1;"A;1"\n3;2;;1;"A;1"\n')

    assert shown(rows) == [(2, "A;1", [2, 3])]
    assert isinstance(rows[0], Order)
    assert rows[0].content.purchase_order_number is None
