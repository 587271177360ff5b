import asyncio
import json
import signal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.__main__ import cli
from orchestrator.job.results import Result, Status
from tests.databases import ROOT
from tests.orchestrator.job.rows import HEADER, csv_of, jsonl_of, order
from tests.orchestrator.job.system import System

FIELDS = [
    "line", "reference", "status", "order_number", "order_id", "saga_id", "total_cents", "code", "detail",
    "attempts", "replayed",
]  # fmt: skip


async def test_csv_has_an_item_a_row(system: System, tmp_path: Path) -> None:
    file = csv_of(tmp_path, "A,1,1,2", "A,1,2,3", "B,1,1,5")

    done = await system.job(file)

    assert done.exit_code == 0, done.err
    assert [list(result) for result in done.results] == [FIELDS] * 2
    assert done.of(
        "line", "reference", "status", "total_cents", "code", "detail", "attempts", "replayed"
    ) == [
        (2, "A", "succeeded", 8000, None, None, 1, False),
        (4, "B", "succeeded", 5000, None, None, 1, False),
    ]
    made = {made["id"]: made for made in await system.all_orders()}
    assert {result["order_id"]: result["order_number"] for result in done.results} == {
        order_id: made["order_number"] for order_id, made in made.items()
    }
    assert all(made["status"] == "CONFIRMED" for made in made.values())
    assert await system.sold() == 7


async def test_json_lines_has_an_order_a_line(system: System, tmp_path: Path) -> None:
    file = jsonl_of(
        tmp_path, order("A", purchase_order_number="PO-1", correlation_id="req-456"), "", order("B", 2)
    )

    done = await system.run(file)

    assert done.exit_code == 0, done.err
    assert done.of("line", "reference", "status", "total_cents") == [
        (1, "A", "succeeded", 1000),
        (3, "B", "succeeded", 2000),
    ]
    first = next(made for made in await system.all_orders() if made["purchase_order_number"] == "PO-1")
    assert first["correlation_id"] == "req-456"
    assert first["id"] == done.results[0]["order_id"]


@pytest.mark.parametrize("name", ["orders.csv", "orders.jsonl"])
async def test_the_examples_work_with_the_sample_data(system: System, name: str) -> None:
    done = await system.run(Path("examples", name))

    assert done.exit_code == 0, done.err
    assert done.statuses == ["succeeded"] * 3


@pytest.mark.parametrize(
    "given",
    [
        f"{HEADER}\nA,1,1,1\nB,1,1,1\n".encode(),
        "\ufeffreference;customer_id;product_id;qty\r\nA;1;1;1\r\nB;1;1;1".encode(),
        "\n".join(json.dumps(order(reference)) for reference in "AB").encode(),
        b"\xef\xbb\xbf" + json.dumps(order("A")).encode() + b"\r\n" + json.dumps(order("B")).encode(),
    ],
    ids=["csv", "csv of a spreadsheet", "json lines", "json lines with a mark"],
)
async def test_standard_input_is_read_whatever_it_is(system: System, given: bytes) -> None:
    done = await system.job("-", given=given)

    assert done.exit_code == 0, done.err
    assert done.of("reference", "status") == [("A", "succeeded"), ("B", "succeeded")]


async def test_a_signal_ends_the_wait_for_standard_input(system: System) -> None:
    process = await system.start("-", stdin=asyncio.subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(json.dumps(order("A")).encode() + b"\n")
    assert process.stdout is not None
    first = await process.stdout.readline()

    process.send_signal(signal.SIGINT)
    await process.wait()

    assert json.loads(first)["status"] == "succeeded"  # before the end of the input
    assert process.returncode == 130


async def test_results_go_to_a_file_if_wanted(system: System, tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"

    done = await system.job(jsonl_of(tmp_path, order("A")), "--output", output)

    assert (done.exit_code, done.out) == (0, "")
    assert json.loads(output.read_text())["status"] == "succeeded"


@pytest.mark.parametrize("content", ["", HEADER, HEADER + "\n\n,,,\n"])
async def test_a_file_without_orders_is_no_failure(system: System, tmp_path: Path, content: str) -> None:
    file = tmp_path / "orders.csv"
    file.write_text(content)

    done = await system.run(file)

    assert (done.exit_code, done.out) == (0, "")
    assert "0 order(s)" in done.err


@pytest.mark.parametrize(
    ("file", "options", "reason"),
    [
        ("missing.csv", (), "No such file or directory"),
        (".", (), "Is a directory"),
        ("orders.csv", ("--url", "localhost:3010"), "is no http:// or https:// address"),
        ("orders.csv", ("--concurrency", "65"), "less than or equal to 64"),
        ("orders.csv", ("--output", "."), "is a directory"),
        ("orders.csv", ("--output", "orders.csv"), "would overwrite the orders"),
    ],
)
def test_what_cannot_be_used_ends_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, options: tuple[str, ...], reason: str
) -> None:
    orders = csv_of(tmp_path, "A,1,1,1")
    monkeypatch.chdir(tmp_path)

    done = CliRunner().invoke(cli, ["job", file, *options])

    assert done.exit_code == 2
    assert reason in done.output
    assert orders.read_text() == f"{HEADER}\nA,1,1,1\n"


async def test_a_file_without_a_header_ends_with_2(system: System, tmp_path: Path) -> None:
    done = await system.run(csv_of(tmp_path, header="A,1,1,1"))

    assert (done.exit_code, done.out) == (2, "")
    assert "the header of the CSV lacks 'reference', 'customer_id', 'product_id', 'qty'" in done.err


async def test_results_that_cannot_be_written_end_it_with_2(system: System, tmp_path: Path) -> None:
    done = await system.job(csv_of(tmp_path, "A,1,1,1"), "--output", "/dev/full")

    assert done.exit_code == 2
    assert "job: the results cannot be written: No space left on device" in done.err
    assert "Traceback" not in done.err


def test_help_shows_both_formats_and_the_exit_codes() -> None:
    done = CliRunner().invoke(cli, ["job", "--help"])

    assert '{"reference": "A-17", "customer_id": 1, "items": [{"product_id": 1, "qty": 2}]}' in done.output
    assert "reference,customer_id,product_id,qty,purchase_order_number\n" in done.output
    assert "ORCHESTRATOR_API_BASE" in done.output
    assert "Exit code: 0 all succeeded, 1 some did not, 2 the file" in done.output


def test_the_document_has_every_option_status_and_field() -> None:
    document = (ROOT / "docs" / "job.md").read_text()

    options = {"--url", "--output", "--patience", *FIELDS, *Status}
    assert [
        name for name in sorted(options) if f"`{name}`" not in document and f" {name} " not in document
    ] == []
    assert list(Result.model_fields) == FIELDS
