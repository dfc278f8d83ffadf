"""A target with a POSIX shell and POSIX utilities alone, as a QNX is: no bash, no ps, nothing of GNU."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from loopback import Sshd, running_sshd
from safe_engines import built, opened

from csa_deploy.errors import EnvironmentLacksError
from csa_deploy.trtexec.command import TimingRequest
from csa_deploy.trtexec.config import load_target
from csa_deploy.trtexec.files import get, listing, put
from csa_deploy.trtexec.safe.tuning import Leftovers
from csa_deploy.trtexec.transport import open_transport, run_script

# Of POSIX.1-2008; sha256sum, openssl, setsid, ps, tac, readlink, mktemp, stat and their like are not there.
POSIX = ("cat", "chmod", "cp", "cut", "dd", "env", "head", "id", "kill", "ln", "ls", "mkdir", "mv", "nohup", "rm")
POSIX += ("sed", "tail", "test", "touch", "tr", "uname", "wc", "true", "false", "printf", "echo", "expr", "basename")
# sleep takes whole seconds, df no -P, and processes are shown by pidin.
STRICT = {
    "sleep": 'case $1 in *[!0-9]*) echo "sleep: whole seconds" >&2; exit 1 ;; esac\nexec {sleep} "$1"\n',
    "df": '[ "$1" = -k ] || {{ echo "df: unknown option" >&2; exit 1; }}\nexec {df} -k "$2"\n',
    "pidin": '[ "$1" = ar ] || exit 1\necho "     pid Arguments"\nexec {ps} -A -o pid= -o args=\n',
}


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    shell = shutil.which("dash")
    if shell is None:
        pytest.skip("no dash on this machine")
    tools = tmp_path_factory.mktemp("qnx")
    (tools / "sh").symlink_to(shell)
    for name in POSIX:
        (tools / name).symlink_to(shutil.which(name) or f"/bin/{name}")
    for name, text in STRICT.items():
        found = {tool: shutil.which(tool) for tool in ("sleep", "df", "ps")}
        (tools / name).write_text(f"#!{shell}\n{text.format(**found)}")
        (tools / name).chmod(0o755)
    yield from running_sshd(tmp_path_factory.mktemp("sshd"), f"PATH={tools} HOME={tools}")


def test_nothing_else_is_there(sshd: Sshd) -> None:
    with open_transport(sshd.config()) as transport:
        for name in ("bash", "sha256sum", "openssl", "setsid", "ps", "python3", "readlink"):
            assert run_script(transport, 'command -v "$1"', name).status, name
        assert run_script(transport, "sleep 0.2").status and run_script(transport, "df -Pk /").status


def test_copies_are_proved_by_reading_them_back(sshd: Sshd, tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(os.urandom(1 << 20))
    with open_transport(sshd.config()) as transport:
        put(transport, blob, str(tmp_path / "copy"))
        assert (tmp_path / "copy").read_bytes() == blob.read_bytes()
        found = listing(transport, [str(tmp_path / "copy")])[str(tmp_path / "copy")]
        get(transport, found, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == blob.read_bytes()


def test_a_damaged_copy_is_noticed(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csa_deploy.trtexec.files._PAUSE_S", 0.01)
    monkeypatch.setattr("csa_deploy.trtexec.files._read_back", lambda transport, path: "0" * 64)
    (tmp_path / "blob").write_bytes(b"content")
    with open_transport(sshd.config()) as transport, pytest.raises(EnvironmentLacksError, match="arrived damaged"):
        put(transport, tmp_path / "blob", str(tmp_path / "copy"))


def test_leftovers_are_found_by_pidin(sshd: Sshd, thor: Callable) -> None:
    target = thor("11.1.0")
    (target.folder / "slow").write_text("")
    remote = load_target(target.file).tuned_by
    with open_transport(sshd.config()) as transport:
        leftovers = Leftovers(transport, remote)
        run_script(transport, f"{target.folder}/bin/tuner tune >/dev/null 2>&1 &")
        for _ in range(200):
            if (target.folder / "tuner.pid").is_file():
                break
            time.sleep(0.05)
        assert leftovers.end() == 1
        assert leftovers.end() == 0


@pytest.mark.slow
def test_build_and_run(thor: Callable, graph: Path, tmp_path: Path) -> None:
    target, out = thor("11.1.0"), tmp_path / "net.engine"
    record = built(target, graph, out)
    with opened(target, out, record, values=False) as runner:
        measured = runner.measure({"x": np.ones((1, 4), np.float32)}, TimingRequest(iterations=5))
    assert len(measured.compute_ms) == 5 and target.work == []
