"""What is said of a mutation: only a test that fails has caught it."""

import os
from pathlib import Path

import pytest

from tests.mutations import MUTATIONS, ROOT, Mutation, Outcome, outcome

BROKEN = """
import pytest
@pytest.fixture
def broken():
    raise ValueError
"""
FAILS = "def test_that_fails():\n    assert False\n"
PASSES = "def test_that_passes():\n    pass\n"
ERRS = f"{BROKEN}\ndef test_without_its_fixture(broken):\n    pass\n"
HANGS = "def test_that_hangs():\n    __import__('time').sleep(60)\n"


@pytest.mark.parametrize(
    ("source", "seconds", "found", "said"),
    [
        (PASSES, 60, Outcome(), "**SURVIVED**"),
        (FAILS, 60, Outcome(failed=("test_that_fails",)), "`test_that_fails`"),
        (
            ERRS,
            60,
            Outcome(errors=("test_without_its_fixture",)),
            "**error** before or after `test_without_its_fixture`",
        ),
        (
            ERRS + FAILS,
            60,
            Outcome(failed=("test_that_fails",), errors=("test_without_its_fixture",)),
            "`test_that_fails`",
        ),
        (HANGS, 1, Outcome(timed_out_after=1), "**timed out** after 1 s"),
    ],
    ids=["green", "failed", "error", "failed and error", "timed out"],
)
def test_an_error_and_a_time_out_are_called_what_they_are(
    tmp_path: Path, source: str, seconds: int, found: Outcome, said: str
) -> None:
    (tmp_path / "test_it.py").write_text(source)

    bare = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # most of the time would be theirs

    ended = outcome(tmp_path, Mutation("any", (), ("test_it.py",)), bare, seconds)

    assert ended == found
    assert str(ended) == said


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_every_mutation_still_fits_the_source(mutation: Mutation) -> None:
    for edit in mutation.edits:
        assert (ROOT / edit.path).read_text().count(edit.old) == 1, edit
    for file in mutation.files:
        assert (ROOT / file).is_file()
