"""The Dockerfile without a container engine: its instructions, and its steps done in a folder.

Only what ours uses is understood; anything else is an error, and so is a file that the .dockerignore
keeps from the builder.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from dev.stack import ROOT

DOCKERFILE = ROOT / "Dockerfile"
IGNORE = ROOT / ".dockerignore"
_FLAG = re.compile(r"--(\w+)=(\S+)\s+")


@dataclass(frozen=True)
class Instruction:
    """One instruction, on one line, with its flags apart."""

    name: str
    flags: Mapping[str, str]
    text: str


@dataclass
class Stage:
    """One stage: what it begins with, and its instructions."""

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        """What its instructions of this name say."""
        return [instruction.text for instruction in self.instructions if instruction.name == name]

    def pairs(self, name: str) -> dict[str, str]:
        """The names and values of its ENV or LABEL instructions."""
        words = shlex.split(" ".join(self.all(name)))
        return dict(word.split("=", 1) for word in words)

    def command(self, name: str) -> list[str] | None:
        """The words of its ENTRYPOINT or CMD."""
        found = self.all(name)
        return json.loads(found[-1]) if found else None


def parse(text: str) -> tuple[dict[str, str], dict[str, Stage]]:
    """The arguments before the first stage, and the stages."""
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    code = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    stage: Stage | None = None
    for line in re.sub(r"\\\n\s*", "", code).splitlines():
        if not line:
            continue
        name, _, rest = line.partition(" ")
        flags: dict[str, str] = {}
        while (found := _FLAG.match(rest)) is not None and name != "ENV":
            flags[found[1]] = found[2]
            rest = rest[found.end() :]
        if name == "FROM":
            base, _, own = rest.partition(" AS ")
            stage = stages[own] = Stage(own, base)
        elif stage is not None:
            stage.instructions.append(Instruction(name, flags, rest))
        elif name == "ARG":
            argument, _, default = rest.partition("=")
            arguments[argument] = default
    return arguments, stages


def copied_paths(stage: Stage) -> Iterator[str]:
    """What a stage takes from the sources."""
    for instruction in stage.instructions:
        if instruction.name == "COPY" and "from" not in instruction.flags:
            yield from instruction.text.split()[:-1]


def ignored(text: str, path: str) -> bool:
    """Whether a .dockerignore keeps this path from the builder."""
    found = False
    parts = PurePosixPath(path).parts
    above = ["/".join(parts[: length + 1]) for length in range(len(parts))]
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        pattern, found_is = line.removeprefix("!"), not line.startswith("!")
        if any(_matches(pattern, one) for one in above):
            found = found_is
    return found


def _matches(pattern: str, path: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch(path.rpartition("/")[2], pattern.removeprefix("**/"))
    return path.count("/") == pattern.count("/") and fnmatch(path, pattern)


class Build:
    """The file trees of stages, each in a folder of its own below `root`."""

    def __init__(self, root: Path, python: str = sys.executable) -> None:
        self._root = root
        self._path = os.pathsep.join((str(Path(python).parent), os.environ.get("PATH", os.defpath)))
        _, self._stages = parse(DOCKERFILE.read_text())
        self._ignore = IGNORE.read_text()

    def tree(self, name: str) -> Path:
        """The root folder of a stage, built with the stages that it needs."""
        tree = self._root / name
        if not tree.exists():
            self._build(self._stages[name], tree)
        return tree

    def environment(self, name: str) -> dict[str, str]:
        """The variables of a stage, with its paths where they are on this machine."""
        tree, stage = self._root / name, self._stages[name]
        found: dict[str, str] = {}
        while True:
            found = stage.pairs("ENV") | found
            if stage.base not in self._stages:
                return {name: _below(tree, value) for name, value in found.items()}
            stage = self._stages[stage.base]

    def _build(self, stage: Stage, tree: Path) -> None:
        if stage.base in self._stages:
            _shell(f"cp --archive --link '{self.tree(stage.base)}' '{tree}'", self._root, os.environ)
        else:
            tree.mkdir(parents=True)
        folder = tree
        for instruction in self._inherited(stage) + stage.instructions:
            match instruction.name:
                case "WORKDIR":
                    folder = _inside(tree, tree, instruction.text)
                    folder.mkdir(parents=True, exist_ok=True)
                case "COPY":
                    self._copy(tree, folder, instruction)
                case "RUN":
                    command = re.sub(r"--mount=\S+ ", "", _below(tree, instruction.text))
                    _shell(command, folder, {**os.environ, "PATH": self._path})
                case "ARG" | "ENV" | "USER" | "LABEL" | "ENTRYPOINT" | "CMD":
                    pass
                case other:
                    raise NotImplementedError(other)

    def _inherited(self, stage: Stage) -> list[Instruction]:
        """The working folder that the base has set."""
        base = self._stages.get(stage.base)
        if base is None:
            return []
        own = [instruction for instruction in base.instructions if instruction.name == "WORKDIR"]
        return (self._inherited(base) + own)[-1:]

    def _copy(self, tree: Path, folder: Path, instruction: Instruction) -> None:
        *sources, target = instruction.text.split()
        origin = instruction.flags.get("from")
        for source in sources:
            came = ROOT / source if origin is None else _inside(self.tree(origin), ROOT, source)
            goal = _inside(tree, folder, target)
            if came.is_dir():
                # Between stages by links, which is quicker; no step changes what another one has made.
                ours = {"ignore": self._kept_out} if origin is None else {"copy_function": os.link}
                shutil.copytree(came, goal, dirs_exist_ok=True, **ours)
            else:
                if origin is None and ignored(self._ignore, source):
                    raise FileNotFoundError(f"{source} is in .dockerignore")
                shutil.copy2(came, goal / came.name if target.endswith("/") else goal)
            if "chown" in instruction.flags and os.geteuid() == 0:
                user, group = map(int, instruction.flags["chown"].split(":"))
                for path in (goal, *goal.rglob("*")):
                    os.chown(path, user, group)

    def _kept_out(self, folder: str, names: list[str]) -> list[str]:
        place = Path(folder).relative_to(ROOT)
        return [name for name in names if ignored(self._ignore, str(place / name))]


def _shell(command: str, folder: Path, variables: Mapping[str, str]) -> None:
    done = subprocess.run(  # noqa: S603 - our own Dockerfile
        ("/bin/sh", "-ec", command), cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def _inside(tree: Path, folder: Path, path: str) -> Path:
    """Where a path of an image is on this machine."""
    return tree / path.removeprefix("/") if path.startswith("/") else folder / path


def _below(tree: Path, text: str) -> str:
    """The text, with the paths of the image in it where they are on this machine."""
    return re.sub(r"(?<![\w./-])/(?=(?:app|build|data|packages|sources|watch)\b)", f"{tree}/", text)
