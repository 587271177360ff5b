from pathlib import Path

import pytest

from dev import docs
from dev.dashboards.boards import BOARDS
from dev.dashboards.grafana import WIDTH

FILES = [file for file in docs.generated() if file.parent == docs.DASHBOARDS]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_boards_are_what_the_code_says(file: Path) -> None:
    assert file.read_text() == docs.generated()[file], "run make docs"


def test_every_panel_says_what_it_shows_in_which_unit_and_has_its_place() -> None:
    for board in BOARDS:
        places: set[tuple[int, int]] = set()
        for panel in board.render()["panels"]:
            at = panel["gridPos"]
            cells = {
                (x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
            }
            assert not cells & places
            assert at["x"] + at["w"] <= WIDTH
            places |= cells
        for shown in board.panels:
            assert shown.description.endswith(".")
            assert shown.unit
        assert board.rows[0].title.endswith("?")
    assert len({board.uid for board in BOARDS}) == len(BOARDS)
