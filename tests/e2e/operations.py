"""What docs/operations.md says, to be done as it stands."""

import re
import shlex
from pathlib import Path

from tests.databases import ROOT

DOCUMENT = ROOT / "docs" / "operations.md"


def section(title: str) -> str:
    """The text under this heading."""
    _, found, rest = DOCUMENT.read_text().partition(f"\n## {title}\n")
    assert found, title
    return rest.partition("\n## ")[0]


def statements(title: str) -> list[str]:
    """The SQL of a section, a statement each."""
    return [
        line.strip().removesuffix(";")
        for block in blocks(section(title), "sql")
        for line in block.splitlines()
    ]


def commands(text: str) -> list[list[str]]:
    """The shell commands of a text, in words; what they read and write comes as words, too."""
    return [
        shlex.split(line)
        for block in blocks(text, "sh")
        for line in block.splitlines()
        if line.strip() and not line.strip().startswith("#")
    ]


def blocks(text: str, language: str) -> list[str]:
    """The blocks of code in this language, also those of lists."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", text, flags=re.MULTILINE | re.DOTALL)


def path_of(link: str) -> Path:
    """The file that a link of the document leads to."""
    return (DOCUMENT.parent / link.partition("#")[0]).resolve()
