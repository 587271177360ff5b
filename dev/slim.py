"""Takes out of a folder of installed packages what no service needs to run.

    python slim.py FOLDER

The build of the image runs it with the Python of the image, so it needs nothing that is not in there.
"""

import struct
import sys
from pathlib import Path
from shutil import rmtree

SOURCES = {".c", ".cpp", ".h", ".hpp", ".map", ".pxd", ".pxi", ".proto", ".pyi", ".pyx"}
"""What extensions and bundles are made of, and what only type checkers read."""

FOLDERS = ("bin", "*/tests", "test", "*-stubs", "sqlalchemy/testing", "alembic/testing", "mako/testing")
"""Programs, which nobody runs here, and tests, with what is for them."""

UI_ASSETS = {"swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png"}
"""What chassis.openapi serves; the rest is an editor."""


def slim(packages: Path) -> None:
    """Remove sources, tests, unused assets and the symbols of libraries."""
    for pattern in FOLDERS:
        for folder in packages.glob(pattern):
            rmtree(folder)
    assets = packages / "swagger_ui" / "static"
    for file in [file for file in packages.rglob("*") if file.is_file()]:
        if file.suffix in SOURCES or (file.parent == assets and file.name not in UI_ASSETS):
            file.unlink()
        elif ".so" in file.suffixes:
            strip(file)


def strip(library: Path) -> None:
    """Cut a library off behind what is loaded: names of symbols and data for debuggers, mostly.

    What `strip` does; but that comes with a compiler's package, from Debian's index, which a build may not
    reach. A loader reads segments only, so it misses neither the sections nor their table. Anything but
    64-bit little-endian ELF is left alone.
    """
    data = bytearray(library.read_bytes())
    if data[:6] != b"\x7fELF\x02\x01":
        return
    (table,) = struct.unpack_from("<Q", data, 0x20)
    size, count = struct.unpack_from("<HH", data, 0x36)
    end = table + size * count
    for header in range(table, end, size):
        offset, _, _, length = struct.unpack_from("<QQQQ", data, header + 8)
        end = max(end, offset + length)
    struct.pack_into("<Q", data, 0x28, 0)  # where the table of sections is
    struct.pack_into("<HH", data, 0x3C, 0, 0)  # how many there are, and which one has their names
    library.write_bytes(data[:end])


if __name__ == "__main__":
    slim(Path(sys.argv[1]))
