"""A command of the image, started from its file tree as in a pod: as another user, on a read-only root."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.image.dockerfile import Build

USER = "10001"
AS_USER = ("setpriv", "--reuid", USER, "--regid", USER, "--clear-groups", "--no-new-privs")


class Container:
    """What stands in for a container with the tree of a stage; only its `/data` can be written."""

    def __init__(self, build: Build, stage: str) -> None:
        self.tree = build.tree(stage)
        self.environment = build.environment(stage)
        self.data = self.tree / "data"
        self._python = _python()
        self._apart = _apart(self.data)

    @property
    def is_apart(self) -> bool:
        """Whether its root really is read-only and its user another one; that takes root here."""
        return bool(self._apart)

    def command(self, *arguments: str) -> Sequence[str]:
        """What is run for these arguments; without `site`, so that it finds what is in the tree alone."""
        return (*self._apart, self._python, "-S", "-m", *arguments)

    def start(self, *arguments: str, log: Path, **variables: str) -> subprocess.Popen[bytes]:
        """Start a command; what it says is in `log`."""
        with log.open("wb") as out:
            return subprocess.Popen(  # noqa: S603 - our own commands
                self.command(*arguments),
                cwd=self.tree / "app",
                env=self._variables(variables),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def run(self, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        return subprocess.run(  # noqa: S603 - our own commands
            self.command(*arguments),
            cwd=self.tree / "app",
            env=self._variables(variables),
            capture_output=True,
            text=True,
            check=False,
        )

    def _variables(self, variables: Mapping[str, str]) -> dict[str, str]:
        """As in a container: those of the image, no home, no folder for temporary files."""
        nowhere = {"HOME": "/nonexistent", "TMPDIR": "/nonexistent"}
        return {"PATH": os.environ.get("PATH", os.defpath), **nowhere, **self.environment, **variables}


def _python() -> str:
    """An interpreter like ours, without an environment around it, that the other user can run."""
    name = f"python3.{sys.version_info.minor}"
    candidates = (str(Path(sys.base_prefix, "bin", name)), f"/usr/bin/{name}")
    found = [candidate for candidate in candidates if _runs(candidate)]
    assert found, f"neither of {candidates} can be run by user {USER}"
    return found[0]


def _runs(python: str) -> bool:
    """Whether it finds its own library; not so, for instance, in the home of somebody else."""
    prefix = AS_USER if os.geteuid() == 0 else ()
    command = (*prefix, python, "-S", "-c", "import asyncio, sqlite3, sys; print(sys.base_prefix)")
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a fixed command
    return Path(done.stdout.strip()) == Path(python).parent.parent


def _apart(data: Path) -> Sequence[str]:
    """What goes before a command to make its root read-only, but for `data`, and its user another one."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return ()
    mounts = 'mount --bind "$0" "$0" && mount -o remount,bind,ro / && exec "$@"'
    prefix = ("unshare", "--mount", "sh", "-c", mounts, str(data), *AS_USER)
    done = subprocess.run((*prefix, "true"), capture_output=True, check=False)  # noqa: S603 - a fixed command
    return prefix if done.returncode == 0 else AS_USER
