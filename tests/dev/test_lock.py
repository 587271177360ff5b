import re
import tomllib

import pytest
from packaging.requirements import Requirement

from dev.stack import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _locked(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", text, flags=re.MULTILINE))


LOCK = (ROOT / "requirements.lock").read_text()
LOCKED = _locked(LOCK)
LOCK_OF_IMAGE = (ROOT / "requirements-run.lock").read_text()
LOCK_OF_WATCH = (ROOT / "requirements-watch.lock").read_text()


def test_the_lock_has_a_version_that_fits_for_every_dependency() -> None:
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]

    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(LOCKED[requirement.name], prereleases=True), "run make lock"


@pytest.mark.parametrize("lock", [LOCK, LOCK_OF_IMAGE, LOCK_OF_WATCH], ids=["all", "image", "watch"])
def test_every_locked_version_has_hashes_and_no_address(lock: str) -> None:
    pinned = re.findall(r"^[a-z0-9-]+==.*(?:\n    --hash=sha256:[0-9a-f]{64}.*)+", lock, flags=re.MULTILINE)

    assert len(pinned) == len(_locked(lock)) > 3
    assert "://" not in lock
    assert "--index-url" not in lock


def test_the_image_has_what_the_services_need_in_the_versions_that_are_tested() -> None:
    in_image = _locked(LOCK_OF_IMAGE)

    assert {Requirement(text).name for text in PROJECT["dependencies"]} <= set(in_image)
    assert in_image.items() <= LOCKED.items()
    assert _locked(LOCK_OF_WATCH).items() <= LOCKED.items()
    assert not {"pytest", "mypy", "ruff", "uv", "watchfiles", "setuptools"} & set(in_image)
