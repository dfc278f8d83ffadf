"""What goes wrong between here and a target, against a real sshd."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from csa_deploy.errors import EnvironmentLacksError
from csa_deploy.trtexec.files import get, listing, make_folder, put
from csa_deploy.trtexec.job import Job, run_job
from csa_deploy.trtexec.transport import (
    ConnectionLostError,
    LocalTransport,
    SshTransport,
    Transport,
    open_transport,
    run_script,
)


@pytest.fixture
def there(sshd) -> Iterator[Transport]:
    with open_transport(sshd.config()) as transport:
        yield transport


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(os.urandom(700_000))
    return path


NASTY = ["a b", "quote'd", '"$HOME"', "`id`", "$(id)", "; rm -rf x", "new\nline", "*", "-n", "ünï", "\\", ""]


def test_arguments_arrive_as_they_are(there: Transport) -> None:
    done = run_script(there, 'for a; do printf "%s\\0" "$a"; done', *NASTY)
    assert done.output.decode().split("\0")[:-1] == NASTY


def test_words_of_a_job_arrive_as_they_are(there: Transport, tmp_path: Path) -> None:
    words = [word for word in NASTY if word]
    job = Job(["sh", "-c", 'printf "%s|" "$@"; printf "%s" "$V"', "sh", *words], {}, (), {"V": "a 'b' $c"})
    finished = run_job(there, str(tmp_path / "work dir"), job, tmp_path)
    assert (finished.status, finished.log) == (0, "|".join(words) + "|a 'b' $c")


def test_options_keep_ssh_strict(sshd) -> None:
    words = SshTransport(sshd.config(jump="gate:2222", user="me")).command("true")
    assert "BatchMode=yes" in words
    assert not any("StrictHostKeyChecking" in word for word in words)
    assert words[words.index("-J") + 1] == "gate:2222"
    assert words[-3:-1] == ["--", "127.0.0.1"]


def test_another_host_key_is_refused(sshd) -> None:
    sshd.know("other")
    try:
        with open_transport(sshd.config()) as transport, pytest.raises(EnvironmentLacksError) as caught:
            run_script(transport, "true")
    finally:
        sshd.know("host")
    assert "its host key is not the one that is known" in caught.value.message
    assert not isinstance(caught.value, ConnectionLostError)


def test_an_unknown_host_is_refused(sshd) -> None:
    (sshd.folder / "known").write_text("")
    try:
        with open_transport(sshd.config()) as transport, pytest.raises(EnvironmentLacksError, match="not known yet"):
            run_script(transport, "true")
    finally:
        sshd.know("host")


def test_a_refused_login(sshd) -> None:
    sshd.client("other")
    try:
        with open_transport(sshd.config()) as transport, pytest.raises(EnvironmentLacksError, match="login is refused"):
            run_script(transport, "true")
    finally:
        sshd.client("user")


def test_nothing_listens(sshd) -> None:
    with (
        open_transport(sshd.config(port=1)) as transport,
        pytest.raises(EnvironmentLacksError, match="nothing listens"),
    ):
        run_script(transport, "true")


def test_an_upload_goes_on_where_it_stopped(there: Transport, blob: Path, tmp_path: Path) -> None:
    remote = str(tmp_path / "copy")
    from csa_deploy.workspace import sha256_of

    partial = Path(f"{remote}.{sha256_of(blob)[:16]}.partial")
    partial.write_bytes(blob.read_bytes()[:300_000])
    seen: list[int] = []
    put(there, blob, remote, lambda done, total: seen.append(done))
    assert seen[0] > 300_000
    assert Path(remote).read_bytes() == blob.read_bytes()
    assert not partial.exists()


def test_a_damaged_part_is_sent_again(there: Transport, blob: Path, tmp_path: Path) -> None:
    from csa_deploy.workspace import sha256_of

    remote = str(tmp_path / "copy")
    Path(f"{remote}.{sha256_of(blob)[:16]}.partial").write_bytes(b"x" * 300_000)
    put(there, blob, remote)
    assert Path(remote).read_bytes() == blob.read_bytes()


def test_what_is_there_is_not_sent_again(there: Transport, blob: Path, tmp_path: Path) -> None:
    put(there, blob, str(tmp_path / "copy"))
    before = (tmp_path / "copy").stat().st_mtime_ns
    put(there, blob, str(tmp_path / "copy"))
    assert (tmp_path / "copy").stat().st_mtime_ns == before


def test_a_download_is_whole(there: Transport, blob: Path, tmp_path: Path) -> None:
    remote = listing(there, [str(blob), str(tmp_path / "missing")])
    assert list(remote) == [str(blob)]
    get(there, remote[str(blob)], tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == blob.read_bytes()


def test_a_cut_connection_is_taken_up_again(
    sshd, there: Transport, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection breaks while the job runs; the job goes on, its result comes, and it ran once."""
    caplog.set_level(logging.INFO, logger="csa_deploy")
    count = tmp_path / "count"
    job = Job(["sh", "-c", f"echo run >> {count}; sleep 4; echo done > out"], {}, ("out",))

    def cut_when_running() -> None:
        while not count.exists():
            time.sleep(0.05)
        sshd.cut()

    cutter = threading.Thread(target=cut_when_running)
    cutter.start()
    finished = run_job(there, str(tmp_path / "w"), job, tmp_path)
    cutter.join()
    assert finished.files["out"].read_text() == "done\n"
    assert count.read_text() == "run\n"
    assert "trying again" in caplog.text


def test_a_lost_target_is_reported_and_the_next_command_takes_the_job_up(
    sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("csa_deploy.trtexec.files._PAUSE_S", 0.05)
    count, workdir = tmp_path / "count", str(tmp_path / "w")
    job = Job(["sh", "-c", f"echo run >> {count}; sleep 1; echo done > out"], {}, ("out",))

    def lose() -> None:
        while not count.exists():
            time.sleep(0.05)
        sshd.cut()
        sshd.stop()

    loser = threading.Thread(target=lose)
    loser.start()
    with open_transport(sshd.config()) as transport, pytest.raises(EnvironmentLacksError) as caught:
        run_job(transport, workdir, job, tmp_path)
    loser.join()
    assert not (tmp_path / "out").exists()
    assert "goes on there" in caught.value.message
    sshd.start()
    with open_transport(sshd.config()) as transport:
        assert run_job(transport, workdir, job, tmp_path).files["out"].read_text() == "done\n"
    assert count.read_text() == "run\n"


def test_a_killed_job_is_reported(there: Transport, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacksError, match="without a trace"):
        run_job(there, str(tmp_path / "w"), Job(["sh", "-c", "kill -9 $PPID; sleep 5"], {}), tmp_path)


def test_a_job_that_takes_too_long_is_ended(there: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csa_deploy.trtexec.job._ROUNDS", 1)
    with pytest.raises(EnvironmentLacksError, match="not done within"):
        run_job(there, str(tmp_path / "w"), Job(["sleep", "60"], {}), tmp_path, limit_s=0.1)


class WithTools(LocalTransport):
    """This machine with other tools first on PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def command(self, script: str, *arguments: str) -> list[str]:
        return ["env", f"PATH={self.folder}:{os.environ['PATH']}", *super().command(script, *arguments)]


def tool(folder: Path, name: str, text: str) -> WithTools:
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / "bin" / name).chmod(0o755)
    return WithTools(folder / "bin")


def test_a_disk_that_is_too_small_is_told_before_anything_is_sent(blob: Path, tmp_path: Path) -> None:
    there = tool(tmp_path, "df", "echo head; echo fs 1 1 1000 99% /")
    with pytest.raises(EnvironmentLacksError, match="0 MiB are free"):
        run_job(there, str(tmp_path / "w"), Job(["true"], {"blob": blob}), tmp_path)


def test_a_disk_that_fills_up(blob: Path, tmp_path: Path) -> None:
    there = tool(tmp_path, "cat", "echo 'cat: write error: No space left on device' >&2; exit 1")
    with pytest.raises(EnvironmentLacksError, match="its disk is full"):
        put(there, blob, str(tmp_path / "copy"))
    assert not (tmp_path / "copy").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentLacksError, match="cannot be used"):
        make_folder(LocalTransport(), str(tmp_path / "file" / "w"))
