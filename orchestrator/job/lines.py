"""Lines of a file, read as a stream."""

import asyncio
import codecs
import os
import select
from collections.abc import AsyncIterator
from typing import BinaryIO

MAX_LINE_BYTES = 1_048_576
CHUNK_BYTES = 65_536
POLL_SECONDS = 0.5

Numbered = AsyncIterator[tuple[int, bytes | None]]
"""Lines with their numbers; None is one over the limit."""


class FileUnusable(Exception):  # noqa: N818 - says what is wrong with it
    """No order can be made of the file, or of the rest of it."""


async def lines_of(file: int, chunk: bytes, copy: BinaryIO | None = None) -> Numbered:
    """Split `chunk` and what follows it in the file into lines."""
    number, rest, too_long = 0, b"", False
    while chunk:
        if copy is not None:
            copy.write(chunk)
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            number += 1
            yield number, None if too_long or len(line) > MAX_LINE_BYTES else line
            too_long = False
        if len(rest) > MAX_LINE_BYTES:
            rest, too_long = b"", True
        chunk = await read(file)
    if rest or too_long:
        yield number + 1, None if too_long else rest


async def read(file: int) -> bytes:
    """The next bytes, none at the end.

    A read that waits for a pipe cannot be canceled and would keep the process from ending. So this
    waits until there is something to read, in a thread that never waits for long.
    """
    while not (await asyncio.to_thread(select.select, [file], [], [], POLL_SECONDS))[0]:
        pass
    return os.read(file, CHUNK_BYTES)


def text_of(line: bytes | None) -> str:
    """The line as text, without its end and the mark that some programs put before the first one."""
    if line is None:
        raise ValueError(f"The line has more than {MAX_LINE_BYTES} bytes.")
    try:
        return line.removeprefix(codecs.BOM_UTF8).removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        raise ValueError("The line is not UTF-8.") from None
