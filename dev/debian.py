"""Programs of Debian's packages that tests and benchmarks need."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))
"""Where programs are; Debian has servers where users' PATH does not look."""

UNPACKED = Path(__file__).parent.parent / "build" / "debian"
"""Where the files of packages are that are used without being installed."""


class ProgramMissing(Exception):  # noqa: N818 - says what to install
    """A program is not there and cannot be installed from here."""


def require(programs: Sequence[str], packages: Sequence[str]) -> None:
    """See to it that the programs are there: as root, install the packages they come in.

    Raises:
        ProgramMissing: they are not there, and this is not root on Debian.

    """
    if not (missing := _missing(programs)):
        return
    wanted = " ".join(packages)
    if os.geteuid() != 0 or shutil.which("apt-get", path=SEARCH_PATH) is None:
        raise ProgramMissing(f"{missing} not found: sudo apt-get install {wanted}")
    with _alone():
        if not (missing := _missing(programs)):
            return  # another process has installed them meanwhile
        print(f"{missing} not found: installing {wanted}", file=sys.stderr, flush=True)
        run("apt-get", "update")
        run("apt-get", "install", "-y", "--no-install-recommends", *packages)
    if missing := _missing(programs):
        raise ProgramMissing(f"{missing} not found, although {wanted} are installed")


def unpacked(package: str) -> Path:
    """The files of a package, fetched and unpacked but not installed: a server in it is not started.

    Raises:
        ProgramMissing: it cannot be fetched from here.

    """
    folder = UNPACKED / package
    UNPACKED.mkdir(parents=True, exist_ok=True)
    with _alone():
        if not folder.exists():
            _fetch(package, folder)
    return folder


def _fetch(package: str, folder: Path) -> None:
    print(f"fetching the Debian package {package}", file=sys.stderr, flush=True)
    with TemporaryDirectory(dir=UNPACKED) as temporary:
        try:
            if os.geteuid() == 0:
                run("apt-get", "update")
            run("apt-get", "download", package, folder=temporary)
        except subprocess.CalledProcessError:
            raise ProgramMissing(f"apt-get download {package} failed: sudo apt-get update") from None
        (file,) = Path(temporary).glob("*.deb")
        run("dpkg-deb", "--extract", str(file), f"{temporary}/files")
        Path(temporary, "files").rename(folder)


def program(name: str) -> str:
    """The path of a program.

    Raises:
        ProgramMissing: it is nowhere.

    """
    if (found := shutil.which(name, path=SEARCH_PATH)) is None:
        raise ProgramMissing(f"{name} not found")
    return found


def run(name: str, *arguments: str, folder: str | None = None) -> str:
    """Run a program to its end, in a folder; what it says is shown only when it fails.

    Raises:
        CalledProcessError: it failed.

    """
    environment = {**os.environ, "PATH": SEARCH_PATH, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(  # noqa: S603 - fixed commands
        (program(name), *arguments),
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr, flush=True)
        done.check_returncode()
    return done.stdout


@contextmanager
def _alone() -> Iterator[None]:
    """Wait until nobody else of us installs something: apt-get itself does not wait, it fails."""
    with Path(program("apt-get")).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _missing(programs: Sequence[str]) -> str:
    return ", ".join(name for name in programs if shutil.which(name, path=SEARCH_PATH) is None)
