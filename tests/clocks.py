"""A wall clock that a test can set while the processes that go by it run."""

from collections.abc import Mapping
from pathlib import Path

from dev.debian import require


class Clock:
    """The clock of the processes that have its `environment`; what counts up steadily is left alone."""

    def __init__(self, folder: Path) -> None:
        require(("faketime",), ("faketime",))
        self._file = folder / "clock"
        library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self.set(0)

    def set(self, seconds: int) -> None:
        """Put it so many seconds before or behind the machine's clock."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._file)
