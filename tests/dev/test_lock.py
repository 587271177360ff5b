import re
import tomllib

from packaging.requirements import Requirement

from dev.stack import ROOT

LOCK = (ROOT / "requirements.lock").read_text()
LOCKED = dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", LOCK, flags=re.MULTILINE))


def test_the_lock_has_a_version_that_fits_for_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]

    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(LOCKED[requirement.name], prereleases=True), "run make lock"


def test_every_locked_version_has_hashes_and_no_address() -> None:
    pinned = re.findall(r"^[a-z0-9-]+==.*(?:\n    --hash=sha256:[0-9a-f]{64}.*)+", LOCK, flags=re.MULTILINE)

    assert len(pinned) == len(LOCKED) > 50
    assert "://" not in LOCK
    assert "--index-url" not in LOCK
