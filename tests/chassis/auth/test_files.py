import os
import time
from pathlib import Path

import pytest

from chassis.auth.files import WatchedFile
from tests.observed import LogLines


def _number(text: str) -> int:
    return int(text)


def _replace(file: Path, text: str) -> None:
    """Let another file take the place of this one, as Kubernetes does."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


def test_what_was_written_counts_at_the_next_look(tmp_path: Path) -> None:
    file = tmp_path / "number"
    file.write_text("1")
    watched = WatchedFile(file, _number)

    seen = [watched.value]
    for text in ("2", "3", "44"):
        file.write_text(text)  # in place: same inode, twice the same size, at almost the same time
        seen.append(watched.value)
    _replace(file, "5")
    seen.append(watched.value)

    assert seen == [1, 2, 3, 44, 5]


def test_a_mounted_secret_is_followed_through_its_links(tmp_path: Path) -> None:
    for name, text in (("old", "1"), ("new", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "number").write_text(text)
    data = tmp_path / "..data"
    data.symlink_to("old")
    (tmp_path / "number").symlink_to("..data/number")
    watched = WatchedFile(tmp_path / "number", _number)

    before = watched.value
    (tmp_path / "..data_tmp").symlink_to("new")
    (tmp_path / "..data_tmp").replace(data)

    assert (before, watched.value) == (1, 2)


@pytest.mark.parametrize("ago", [3600, -3600], ids=["settled", "from before the clock was set back"])
def test_a_file_that_did_not_change_is_not_read_again(tmp_path: Path, ago: int) -> None:
    file = tmp_path / "number"
    file.write_text("1")
    os.utime(file, (time.time() - ago,) * 2)
    read: list[str] = []
    watched = WatchedFile(file, read.append)

    for _ in range(3):
        _ = watched.value

    assert read == ["1"]


@pytest.mark.parametrize("damage", ["empty", "nonsense", "gone"])
def test_a_file_that_will_not_do_leaves_what_was_with_one_warning(
    tmp_path: Path, log_lines: LogLines, damage: str
) -> None:
    file = tmp_path / "number"
    file.write_text("1")
    watched = WatchedFile(file, _number)

    if damage == "gone":
        file.unlink()
    else:
        file.write_text("" if damage == "empty" else damage)
    assert [watched.value, watched.value] == [1, 1]
    [warning] = log_lines()
    assert (warning["level"], warning["file"]) == ("warning", str(file))

    file.write_text("2")
    assert watched.value == 2
