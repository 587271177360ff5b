"""The values of a chart as a table, from values.yaml and the comments in it that begin with `# -- `.

A comment describes the key below it and all that is in it; a key in there that has a comment, too, has a row.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

LONGEST_DEFAULT = 160


class Value(NamedTuple):
    """A key of values.yaml that is described, with its default."""

    path: str
    default: Any
    description: str


def table(file: Path) -> str:
    """Every described value, in the order of the file.

    Raises:
        SystemExit: a value has no description.

    """
    rows = [
        f"| `{value.path}` | {_shown(value.default)} | {_cell(value.description)} |"
        for value in described(file)
    ]
    return "\n".join(["| value | default | meaning |", "|---|---|---|", *rows])


def described(file: Path) -> list[Value]:
    """The values that have a description.

    Raises:
        SystemExit: there is one that has none, nor is it in one that has.

    """
    text = file.read_text()
    try:
        return list(_in(yaml.compose(text, yaml.SafeLoader), text.splitlines(), "", inherited=False))
    except LookupError as error:
        raise SystemExit(f"{file}: {error.args[0]} has no description: write `# -- …` above it") from None


def _in(node: yaml.Node | None, lines: Sequence[str], prefix: str, *, inherited: bool) -> Iterator[Value]:
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        path = f"{prefix}{key.value}"
        first_of_line = not lines[key.start_mark.line][: key.start_mark.column].strip()
        comment = _comment_above(lines, key.start_mark.line) if first_of_line else None
        if comment is not None:
            yield Value(path, yaml.SafeLoader("").construct_document(value), comment)
        if isinstance(value, yaml.MappingNode) and value.value:
            yield from _in(value, lines, f"{path}.", inherited=inherited or comment is not None)
        elif comment is None and not inherited:
            raise LookupError(path)


def _comment_above(lines: Sequence[str], line: int) -> str | None:
    """The text of `# -- ` and the lines that continue it, right above a line."""
    first = line
    while first > 0 and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    block = [text.strip().removeprefix("#").strip() for text in lines[first:line]]
    starts = [number for number, text in enumerate(block) if text.startswith("-- ")]
    return " ".join(block[starts[-1] :]).removeprefix("-- ") if starts else None


def _shown(default: object) -> str:
    text = default if isinstance(default, str) else json.dumps(default, ensure_ascii=False)
    if len(text) > LONGEST_DEFAULT:
        return "see values.yaml"
    return f"`{_cell(text)}`" if text else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
