"""Several commands and machines at one target; processes that are not what they seem; ways through other hosts."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from csa_deploy.errors import EnvironmentLacksError
from csa_deploy.trtexec.files import Remote, get, put
from csa_deploy.trtexec.job import Finished, Job, run_job
from csa_deploy.trtexec.transport import ConnectionLostError, LocalTransport, Transport, open_transport, run_script
from csa_deploy.workspace import sha256_of


@pytest.fixture
def there(sshd) -> Iterator[Transport]:
    with open_transport(sshd.config()) as transport:
        yield transport


def watched(log: Path, seconds: float = 0.6) -> Job:
    """A job that notes when it begins and ends, and gives a file."""
    return Job(["sh", "-c", f"echo begin >> {log}; sleep {seconds}; echo end >> {log}; echo done > out"], {}, ("out",))


def together(
    *jobs: Job, workdir: Path, hosts: list[str], into: Path, monkeypatch: pytest.MonkeyPatch
) -> list[Finished]:
    """Run jobs at once, each as if from a machine of its own name."""
    here = threading.local()
    monkeypatch.setattr(platform, "node", lambda: here.name)
    results: list[Finished] = []

    def run(job: Job, host: str, folder: Path) -> None:
        here.name = host
        folder.mkdir()
        results.append(run_job(LocalTransport(), str(workdir), job, folder))

    threads = [
        threading.Thread(target=run, args=(job, host, into / str(index)))
        for index, (job, host) in enumerate(zip(jobs, hosts, strict=True))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("hosts", [["one", "two", "three"], ["one", "one", "one"]])
def test_the_same_job_from_several_at_once(
    hosts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each gets its result, and never do two run at the same time: they would spoil each other's timings."""
    log = tmp_path / "log"
    job = watched(log)
    results = together(job, job, job, workdir=tmp_path / "w", hosts=hosts, into=tmp_path, monkeypatch=monkeypatch)
    assert [result.files["out"].read_text() for result in results] == ["done\n"] * 3
    assert log.read_text() == "begin\nend\n" * 3
    assert "waiting for another command" in caplog.text
    assert list((tmp_path / "w").iterdir()) == []


def test_waiting_does_not_count_towards_the_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csa_deploy.trtexec.job._ROUNDS", 1)
    workdir, log = tmp_path / "w", tmp_path / "log"
    here, beside = tmp_path / "here", tmp_path / "beside"  # as two runs have it: what each fetches is its own
    here.mkdir()
    beside.mkdir()
    other = threading.Thread(target=run_job, args=(LocalTransport(), str(workdir), watched(log, 3), beside))
    other.start()
    while not log.exists():
        time.sleep(0.05)
    assert run_job(LocalTransport(), str(workdir), Job(["true"], {}), here, limit_s=1.5).status == 0
    other.join()


def process_that_is_gone() -> int:
    return int(subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("holder", ["gone", "another process of that number"])
def test_the_lock_of_a_dead_job_is_taken_over(holder: str, tmp_path: Path) -> None:
    workdir = tmp_path / "w"
    workdir.mkdir(mode=0o700)
    # The number of this living process, as it would be had another process had it before the target's restart.
    text = f"{process_that_is_gone()} 1\n" if holder == "gone" else f"{os.getpid()} 12345\n"
    (workdir / "lock").write_text(text)
    assert run_job(LocalTransport(), str(workdir), Job(["true"], {}), tmp_path).status == 0
    assert list(workdir.iterdir()) == []


def test_a_number_that_another_process_has_now_is_no_running_job(tmp_path: Path) -> None:
    """The target restarted while the job ran; its number was given anew. The job is run again, the other left alone."""
    workdir, job = tmp_path / "w", Job(["echo", "hello"], {})
    folder = workdir / job.key[:24]
    folder.mkdir(parents=True)
    other = subprocess.Popen(["sleep", "60"])
    try:
        (folder / "job.pid").write_text(f"{other.pid} 12345\n")
        assert run_job(LocalTransport(), str(workdir), job, tmp_path).log == "hello\n"
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_job_without_trace_on_a_full_disk(tmp_path: Path) -> None:
    """No exit status could be written: the disk is looked at before anything else is blamed."""
    tools = tmp_path / "bin"
    tools.mkdir()
    count = tools / "count"
    # Enough space when the job is prepared, none when it is asked for again.
    (tools / "df").write_text(
        f"#!/bin/sh\necho head\nif [ -f {count} ]; then echo fs 1 1 3; else echo fs 1 1 99999999; fi\n"
    )
    (tools / "df").chmod(0o755)

    class Here(LocalTransport):
        def command(self, script: str, *arguments: str) -> list[str]:
            return ["env", f"PATH={tools}:{os.environ['PATH']}", *super().command(script, *arguments)]

    with pytest.raises(EnvironmentLacksError, match="its disk is full"):
        run_job(Here(), str(tmp_path / "w"), Job(["sh", "-c", f": > {count}; kill -9 $PPID; sleep 5"], {}), tmp_path)


def test_environment_of_odd_characters(there: Transport, tmp_path: Path) -> None:
    values = {"A": "a b", "B": 'it\'s "$HOME" `id`', "C": "two\nlines", "D": "ünï=;&|<>*?", "E": "", "F": "\\n\\"}
    command = ["sh", "-c", 'printf "%s|" "$A" "$B" "$C" "$D" "$E" "$F"']
    assert run_job(there, str(tmp_path / "w"), Job(command, {}, (), values), tmp_path).log == "|".join(
        [*values.values(), ""]
    )


def test_a_copy_survives_a_cut_connection(sshd, there: Transport, tmp_path: Path) -> None:
    """Cut in the middle, for real, both ways: it goes on where it stopped."""
    blob = tmp_path / "blob"
    blob.write_bytes(os.urandom(24 << 20))
    copy, seen = tmp_path / "copy", []

    def cut_once(done: int, total: int) -> None:
        if not seen and done > 1 << 20:
            sshd.cut()
        seen.append(done)

    put(there, blob, str(copy), cut_once)
    assert copy.read_bytes() == blob.read_bytes()
    assert seen[-1] == blob.stat().st_size
    seen.clear()
    get(there, Remote(str(copy), sha256_of(blob), blob.stat().st_size), tmp_path / "back", cut_once)
    assert (tmp_path / "back").read_bytes() == blob.read_bytes()
    assert seen[-1] == blob.stat().st_size


def test_through_a_jump_host(sshd, tmp_path: Path) -> None:
    known = sshd.folder / "known"
    known.write_text(known.read_text() + known.read_text().replace("127.0.0.1", "localhost"))
    with open_transport(sshd.config(jump=f"localhost:{sshd.port}")) as transport:
        assert run_script(transport, "echo here").text == "here"
        put(transport, Path(__file__), str(tmp_path / "copy"))
    sshd.know("host")
    assert (tmp_path / "copy").read_bytes() == Path(__file__).read_bytes()


def test_a_jump_host_that_is_not_known_is_refused_and_nothing_is_asked(sshd) -> None:
    """BatchMode holds for the target's connection only; without a terminal, the jump host's has nobody to ask."""
    with (
        open_transport(sshd.config(jump=f"localhost:{sshd.port}")) as transport,
        pytest.raises(EnvironmentLacksError, match=r"through localhost:\d+\) cannot be reached") as caught,
    ):
        run_script(transport, "true")
    assert "host key is not known yet" in caught.value.message
    assert not isinstance(caught.value, ConnectionLostError)


def test_a_workdir_of_another_user(there: Transport, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to make another user's directory")
    (tmp_path / "w").mkdir()
    os.chown(tmp_path / "w", 12345, 12345)
    with pytest.raises(EnvironmentLacksError, match="it belongs to another user"):
        run_job(there, str(tmp_path / "w"), Job(["true"], {}), tmp_path)


def test_logs_name_the_target(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level(logging.INFO, logger="csa_deploy")
    workdir, job = tmp_path / "w", Job(["true"], {})
    folder = workdir / job.key[:24]
    folder.mkdir(parents=True)
    (folder / "job.status").write_text("3\n")
    assert run_job(LocalTransport(), str(workdir), job, tmp_path).status == 3
    assert "this machine: taking up the job that an earlier command started" in caplog.text
