from pathlib import Path

import pytest

from dev.values import table

VALUES = """\
# What this block is for is no description.
db:
  # -- Host of it: `a|b`
  host: ""
  # -- Its port,
  # on two lines
  port: 3306

  # A remark.

# -- All of this, with one remark
limits:
  memory: 1Gi
  # -- The other one
  cpu: null
# -- Labels
labels: {app: b}
"""


def test_a_table_has_a_row_for_each_value_that_is_described(tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text(VALUES)

    assert table(tmp_path / "values.yaml").splitlines() == [
        "| value | default | meaning |",
        "|---|---|---|",
        "| `db.host` |  | Host of it: `a\\|b` |",
        "| `db.port` | `3306` | Its port, on two lines |",
        '| `limits` | `{"memory": "1Gi", "cpu": null}` | All of this, with one remark |',
        "| `limits.cpu` | `null` | The other one |",
        '| `labels` | `{"app": "b"}` | Labels |',
    ]


def test_a_default_that_is_long_stands_in_its_file(tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text("# -- Many\nmany: [" + "12345, " * 40 + "1]\n")

    assert "| `many` | see values.yaml | Many |" in table(tmp_path / "values.yaml")


def test_a_value_without_a_description_is_named(tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text("db:\n  host: a\n")

    with pytest.raises(SystemExit, match=r"db\.host has no description"):
        table(tmp_path / "values.yaml")
