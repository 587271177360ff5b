import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dev import demo, scene
from dev.stack import ROOT
from tests.e2e.leftovers import processes_of

SHOWN = (
    "ORD-00000001 of ACME Corporation is CONFIRMED: 7,073.00 USD, correlation id req-456",
    "SUCCEEDED",
    "— → CREATED",
    "└─ POST /admin/orders/{order_id}/confirm 200",
    "CHAIR-ERGO      500     492      -8          0",
    "201, Idempotent-Replayed: true",
    "422 idempotency.key_reused",
    "409 stock.insufficient, refused in step create_order",
    "not repeated",
    "b2b_orders_total{outcome=confirmed}",
    "stock, reservations and totals equal the ledger",
    "Everything above was checked",
)


def _start(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        (sys.executable, "-m", "dev.demo"),
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_demo_shows_the_main_job_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with _start(tmp_path) as process:
        shown, _ = process.communicate()

    assert process.returncode == 0, shown
    assert [line for line in SHOWN if line not in shown] == []
    assert "\x1b" not in shown
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []


def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    with _start(tmp_path) as process:
        assert process.stdout is not None
        assert "Three services run" in process.stdout.readline()
        process.terminate()
        process.communicate()

    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []


def test_the_demo_says_what_is_not_as_it_should_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scene, "JOB", "/orchestrator/no-such-job")

    code = asyncio.run(demo.main())

    shown = capsys.readouterr().out
    assert code == 1
    assert "The end of orchestrator.log" in shown
    assert "The demo failed: POST" in shown
    assert "answered 404" in shown
