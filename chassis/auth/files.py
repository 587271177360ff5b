"""A file that is read again when it changes, like a secret that Kubernetes mounts."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog

T = TypeVar("T")
SETTLED_SECONDS = 1
log = structlog.get_logger(__name__)


class WatchedFile(Generic[T]):
    """What `parse` makes of a file's text; it raises a ValueError for a text that will not do.

    Looking whether the file changed is one `stat`, a few microseconds, so it is done at every use: what
    was rotated counts from the next request on. A file that is gone or will not do leaves the
    value at what it was, with a warning.
    """

    def __init__(self, path: Path, parse: Callable[[str], T]) -> None:
        self._path = path
        self._parse = parse
        self._seen: object = None
        self._warned = False
        self._value = self._read()

    @property
    def value(self) -> T:
        """What the file says now."""
        try:
            self._value = self._read()
        except (OSError, ValueError) as error:
            if not self._warned:
                log.warning(
                    "a file is unusable, what it said before still counts",
                    file=str(self._path),
                    reason=type(error).__name__,
                )
            self._warned = True
        else:
            self._warned = False
        return self._value

    def _read(self) -> T:
        status = self._path.stat()
        seen = (status.st_ino, status.st_size, status.st_mtime_ns)
        if seen == self._seen:
            return self._value
        value = self._parse(self._path.read_text())
        # The clock of files is coarse: what was written a moment ago may be written again unnoticed.
        # A time that is still to come is no moment ago: the clock was set back.
        self._seen = seen if abs(time.time() - status.st_mtime) > SETTLED_SECONDS else None
        return value
