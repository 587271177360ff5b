"""What a process may leave behind."""

from contextlib import suppress
from pathlib import Path


def processes_of(folder: Path) -> list[str]:
    """The processes that were told of this folder by their environment: the services that run on it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            if f"DATA_DIR={folder}" in (process / "environ").read_text(errors="replace"):
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found
