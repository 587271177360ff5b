import os
import subprocess
import sys
from pathlib import Path

from dev.stack import ROOT


def _setup(**variables: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ("/bin/sh", "dev/setup.sh"),
        cwd=ROOT,
        env={**os.environ, **{name: str(value) for name, value in variables.items()}},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_python_that_is_too_old_is_refused_by_its_version(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.9.2 && exit 0\nexit 1\n')
    old.chmod(0o755)

    done = _setup(PYTHON=old, VENV=tmp_path / "venv")

    assert done.returncode == 1
    assert f"{old} is Python 3.9.2, but this project needs Python 3.11 or newer" in done.stderr


def test_a_python_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = _setup(PYTHON="python-of-nowhere", VENV=tmp_path / "venv")

    assert done.returncode == 1
    assert "there is no python-of-nowhere" in done.stderr


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("of value")

    done = _setup(PYTHON=sys.executable, VENV=tmp_path)

    assert done.returncode == 1
    assert "is no virtual environment" in done.stderr
    assert precious.read_text() == "of value"
