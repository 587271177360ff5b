import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dev import debian

# Like the real one it fails when another one is under way.
APT_GET = """#!/bin/sh
cd {folder} || exit 1
/bin/mkdir busy || exit 100
echo "$1" >>log
if [ "$1" = install ]; then /bin/sleep 0.2; echo '#!/bin/sh' >mariadbd; /bin/chmod +x mariadbd; fi
/bin/rmdir busy
"""


def test_of_many_who_miss_a_program_at_once_one_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    apt_get = tmp_path / "apt-get"
    apt_get.write_text(APT_GET.format(folder=tmp_path))
    apt_get.chmod(0o755)
    monkeypatch.setattr(debian, "SEARCH_PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    with ThreadPoolExecutor(4) as many:
        for each in [many.submit(debian.require, ["mariadbd"], ["mariadb-server-core"]) for _ in range(4)]:
            each.result()

    assert (tmp_path / "log").read_text().split() == ["update", "install"]
