import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from chassis import __version__
from dev.stack import ROOT
from tests.image.dockerfile import DOCKERFILE, IGNORE, copied_paths, ignored, parse

ARGUMENTS, STAGES = parse(DOCKERFILE.read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NOT_SOURCES = {"build", "var"}
RUN, DEV = STAGES["run"], STAGES["dev"]


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(  # noqa: S603 - a fixed command
        (Path(sys.executable).parent / "hadolint", DOCKERFILE), capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (0, "")


def test_the_base_is_an_argument_with_a_version_and_a_digest() -> None:
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}", ARGUMENTS["BASE_IMAGE"])
    assert {stage.base for stage in STAGES.values() if stage.base not in STAGES} == {"${BASE_IMAGE}"}


def test_what_is_built_without_a_target_is_for_production() -> None:
    assert list(STAGES)[-1] == "run"
    assert [RUN.base, DEV.base] == ["base", "base"]


def test_it_runs_as_a_numeric_user_who_is_not_root() -> None:
    assert STAGES["base"].all("USER") == ["10001:10001"]
    assert [stage.name for stage in STAGES.values() if stage.all("USER")] == ["base"]


def test_the_services_differ_in_their_arguments_only() -> None:
    assert STAGES["base"].command("ENTRYPOINT") == ["python", "-m"]
    assert STAGES["base"].command("CMD") == ["orchestrator", "serve"]
    assert RUN.command("ENTRYPOINT") is RUN.command("CMD") is None


def test_the_labels_say_what_it_is() -> None:
    labels = RUN.pairs("LABEL")
    arguments = dict(text.partition("=")[::2] for text in RUN.all("ARG"))

    assert {name.removeprefix("org.opencontainers.image.") for name in labels} == {
        *("title", "description", "version", "revision", "created", "base.name")
    }
    assert labels["org.opencontainers.image.title"] == PROJECT["project"]["name"]
    assert labels["org.opencontainers.image.description"] == PROJECT["project"]["description"]
    assert arguments["VERSION"] == PROJECT["project"]["version"] == __version__


def test_the_address_of_the_index_is_an_argument_of_the_build_and_stays_there() -> None:
    stages_with_it = [stage.name for stage in STAGES.values() if "PIP_INDEX_URL" in stage.all("ARG")]

    assert stages_with_it == ["packages"]
    assert "packages" not in {RUN.base, DEV.base, STAGES["base"].base}
    assert "://" not in DOCKERFILE.read_text()


@pytest.mark.parametrize("name", ["sources", "dev"])
def test_every_package_of_the_project_is_copied(name: str) -> None:
    packages = {one.removesuffix("*") for one in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}

    assert {path for path in copied_paths(STAGES[name]) if path != "dev/reload.sh"} == packages


def test_the_builder_gets_what_is_copied_and_nothing_else() -> None:
    files = list(_files())
    wanted = tuple(path for stage in STAGES.values() for path in copied_paths(stage))

    sent = [file for file in files if not ignored(IGNORE.read_text(), file)]

    assert "chassis/app.py" in sent
    assert "orders/migrations/versions/0001_orders.py" in sent
    assert [file for file in sent if not file.startswith(wanted)] == []
    assert [path for path in wanted if not any(file.startswith(path) for file in sent)] == []
    assert ignored(IGNORE.read_text(), "orders/__pycache__/app.cpython-313.pyc")
    assert ignored(IGNORE.read_text(), "var/orders.db")


def _files() -> Iterator[str]:
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in NOT_SOURCES]
        yield from (str((Path(folder) / name).relative_to(ROOT)) for name in names)
