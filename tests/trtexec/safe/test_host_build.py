"""A host builds for a target over a real sshd: the engine and its parts, the evidence, the commands."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from csa_deploy.engine.plan import BuildPlan
from csa_deploy.errors import CsaDeployError, EnvironmentLacksError
from csa_deploy.trtexec.builder import trtexec_build
from csa_deploy.trtexec.config import load_target
from csa_deploy.trtexec.job import Job, run_job
from csa_deploy.trtexec.machine import open_machine
from csa_deploy.trtexec.settings import TrtexecOptions
from csa_deploy.trtexec.transport import open_transport

pytestmark = pytest.mark.slow  # each starts an ssh and programs at both of its ends
PLAN = BuildPlan(backend="trtexec", restricted=True)
SAFE = TrtexecOptions(safe=True)

# Of 11.3 the stand-in's own name, as its real one is not documented; 11.5 is told one.
COMPANIONS = {"11.3.1": "generated_host_code.so", "11.5.0": "engine.plan.so"}
EXPECTED = {
    "10.13.3": None,  # a GPU in the host is needed
    "10.15.0": ("safety-build", "consistency-checked: --consistency of TensorRT 10.15 fails always"),
    "10.16.0": ("consistency-checked", "reference-checked: trtexec of TensorRT 10.16.0 has no reference checker"),
    "11.1.0": ("consistency-checked", "reference-checked: trtexec of TensorRT 11.1.0 has no reference checker"),
    "11.3.1": ("reference-checked", ""),
    "11.5.0": ("reference-checked", ""),
}


@pytest.mark.parametrize("version", [version for version, expected in EXPECTED.items() if expected])
def test_a_host_without_a_gpu_builds(thor: Callable, graph: Path, tmp_path: Path, version: str) -> None:
    target = thor(version)
    seen: list[tuple[int, int]] = []
    out = tmp_path / "here" / "net.engine"
    with open_machine(load_target(target.file), to_build=True) as machine:
        result = trtexec_build(machine, graph, out, PLAN, SAFE, lambda done, of: seen.append((done, of)))
    level, why = EXPECTED[version]
    assert result.restricted.level == level
    assert result.restricted.why_not_next.startswith(why) and bool(result.restricted.why_not_next) == bool(why)
    assert f"level {level}" in result.restricted.statement and "safety engine" in result.restricted.statement
    assert {"--safe", "--cpuOnly", "--skipInference", "--dumpKernelText"} <= set(result.command)
    assert ("--consistency" in result.command) == (version != "10.15.0")
    assert any(word.startswith("--remoteAutoTuningConfig=ssh://***@127.0.0.1") for word in result.command)
    roles = {part.role: part.file for part in result.parts}
    assert roles == {"checker-blob": "engine.plan.txt"} | (
        {"companion": COMPANIONS[version]} if version in COMPANIONS else {}
    )
    assert all((out.parent / "net.engine.parts" / name).is_file() for name in roles.values())
    tuned = (target.folder / "tuned").read_text().split()
    assert tuned == (["tune", "reference"] if level == "reference-checked" else ["tune"])
    assert seen[-1][0] == seen[-1][1]
    assert target.work == []  # the target is left clean, its lock released
    assert sorted(path.name for path in out.parent.iterdir()) == ["net.engine", "net.engine.log", "net.engine.parts"]
    assert result.parts[0].role in roles


def refused(target, graph: Path, tmp_path: Path, options: TrtexecOptions = SAFE) -> CsaDeployError:
    """The error of a build; the target is left clean, and nothing half-written here."""
    out = tmp_path / "here" / "net.engine"
    with pytest.raises(CsaDeployError) as caught, open_machine(load_target(target.file), to_build=True) as machine:
        trtexec_build(machine, graph, out, PLAN, options)
    assert "\n" not in caught.value.message and caught.value.fix
    left = {path.name for path in out.parent.iterdir()} if out.parent.is_dir() else set()
    assert left <= {"net.engine.log"}
    if (target.folder / "work").is_dir():
        assert target.work == []
    return caught.value


def test_what_is_missing_is_told_before_anything_is_built(
    thor: Callable, libraries: Path, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = thor("11.1.0")
    text = target.file.read_text()
    for key, value, message in (
        ("remote_exec_path", "/missing/bin", "there is no /missing/bin"),
        ("remote_lib_path", "/missing/lib", "there is no /missing/lib"),
        ("trtexec_safe", "/missing/trtexec_safe", "there is no /missing/trtexec_safe"),
        ("host_trtexec", "/missing/trtexec", "no trtexec /missing/trtexec"),
        ("host_environment", "{}", "cannot load libnvinfer_safe.so"),
        ("host_environment", f"{{LD_LIBRARY_PATH: '{libraries}/trt'}}", "libcuda.so.1"),
    ):
        target.file.write_text(text)
        target.without(key)
        target.say(f"{key}: {value}\n")
        error = refused(target, graph, tmp_path)
        assert message in error.message and error.exit_code == 3
    target.file.write_text(text)
    target.say("safety_plugins: [{build: '/missing/libp.so[::N]', run: '/missing/libr.so[::N]'}]\n")
    assert "no such library: /missing/libp.so" in refused(target, graph, tmp_path).message
    only_safe = tmp_path / "only"
    only_safe.mkdir()
    for name in ("trt/libnvinfer_safe.so", "driver/libcuda.so.1"):
        (only_safe / Path(name).name).symlink_to(libraries / name)
    target.file.write_text(text)
    target.without("host_environment")
    target.say(f"host_environment: {{LD_LIBRARY_PATH: '{only_safe}'}}\n")
    assert "cannot load libnvinfer_checker_shared.so" in refused(target, graph, tmp_path).message
    assert not (target.folder / "tuned").exists()


def test_versions_must_be_equal(thor: Callable, graph: Path, tmp_path: Path) -> None:
    target = thor("11.1.0", host_version="11.0.0")
    error = refused(target, graph, tmp_path)
    assert "has TensorRT 11.1.0, this machine's trtexec is of 11.0.0" in error.message and error.exit_code == 2
    target.without("trtexec_safe")
    (target.folder / "lib" / "libnvinfer_safe.so.11.1.0").write_bytes(b"")  # a target without a runner tells it too
    assert "has TensorRT 11.1.0" in refused(target, graph, tmp_path).message
    (target.folder / "lib" / "libnvinfer_safe.so.11.1.0").rename(
        target.folder / "lib" / "libnvinfer_safe_debug.so.11.0.0"
    )
    target.say('tensorrt: "11.1"\n')
    assert "has TensorRT 11.0.0, its file states 11.1" in refused(target, graph, tmp_path).message


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("10.10.0", "has no remote tuning"),
        ("10.13.3", "with a GPU in the host only"),
        ("8.6.13", "has no remote tuning"),
    ],
)
def test_a_host_that_cannot_tune_remotely(
    thor: Callable, graph: Path, tmp_path: Path, version: str, message: str
) -> None:
    assert message in refused(thor(version), graph, tmp_path).message


def test_a_host_with_a_gpu_needs_no_option_for_it(thor: Callable, graph: Path, tmp_path: Path) -> None:
    target = thor("10.13.3")
    target.say("cpu_only: false\n")
    with open_machine(load_target(target.file), to_build=True) as machine:
        result = trtexec_build(machine, graph, tmp_path / "e", PLAN, SAFE)
    assert "--cpuOnly" not in result.command and result.restricted.level == "consistency-checked"


def test_only_safety_engines_of_the_gpu_are_built_on_a_host(thor: Callable, graph: Path, tmp_path: Path) -> None:
    target = thor("11.1.0")
    assert "a host builds safety engines" in refused(target, graph, tmp_path, TrtexecOptions()).message


@pytest.mark.parametrize(
    ("setting", "version", "message"),
    [
        ("STANDIN_INCONSISTENT", "11.1.0", "a checker of NVIDIA's refuses the engine (Consistency validation failed)"),
        ("STANDIN_NO_REFERENCE", "11.3.1", "reference checker refuses the engine: kernel 3 differs"),
        ("STANDIN_NO_ENGINE", "11.1.0", "wrote no engine"),
    ],
)
def test_what_a_checker_refuses_is_no_engine(
    thor: Callable,
    graph: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    version: str,
    message: str,
) -> None:
    monkeypatch.setenv(setting, "1")
    error = refused(thor(version), graph, tmp_path)
    assert message in error.message and error.exit_code == 5


@pytest.mark.shows("MEA-44")
def test_failed_with_status_0_is_failed(
    thor: Callable, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_STATUS", "0")
    monkeypatch.setenv("STANDIN_SAY", "Could not find any implementation for node /conv.")
    assert "no kernel for /conv" in refused(thor("11.1.0"), graph, tmp_path).message


def test_kernels_without_text_are_checked_without_a_blob(
    thor: Callable, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_NO_KERNELS", "1")
    target = thor("11.3.1")
    with open_machine(load_target(target.file), to_build=True) as machine:
        result = trtexec_build(machine, graph, tmp_path / "e", PLAN, SAFE)
    assert result.restricted.level == "reference-checked"
    assert [part.role for part in result.parts] == ["companion"]
    assert "kernel text: not kept: trtexec produced none" in result.not_done


def test_the_target_breaks_while_it_tunes(thor: Callable, graph: Path, tmp_path: Path) -> None:
    target = thor("11.1.0")
    (target.folder / "broken").write_text("")
    error = refused(target, graph, tmp_path)
    assert "remote tuning: ssh ended with 9" in error.message and error.exit_code == 5


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(path: Path) -> int:
    for _ in range(2400):  # a busy machine takes its time
        if path.is_file() and path.read_text().strip():
            return int(path.read_text())
        time.sleep(0.05)
    raise AssertionError(f"{path} did not come")


@pytest.mark.parametrize("how", ["limit", "ctrl-C"])
def test_a_build_that_is_ended_ends_here_and_there(
    thor: Callable, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The host's trtexec, its ssh and what they started on the target."""
    target = thor("11.1.0")
    (target.folder / "slow").write_text("")
    tuner = target.folder / "tuner.pid"
    if how == "limit":
        late = SimpleNamespace(monotonic=lambda: time.monotonic() + (1e6 if tuner.is_file() else 0))
        monkeypatch.setattr("csa_deploy.trtexec.safe.watched.time", late)  # the hours are over once kernels are timed
        assert "not done within 12 hours" in refused(target, graph, tmp_path).message
    else:
        stop = threading.Thread(target=lambda: (wait_for(tuner), os.kill(os.getpid(), signal.SIGINT)))
        stop.start()
        with (
            pytest.raises(KeyboardInterrupt),
            open_machine(load_target(target.file), to_build=True) as machine,
        ):
            trtexec_build(machine, graph, tmp_path / "here" / "net.engine", PLAN, SAFE)
        stop.join()
        assert list((tmp_path / "here").iterdir()) == [] and target.work == []
    pid = wait_for(tuner)
    for _ in range(400):
        if not alive(pid):
            break
        time.sleep(0.05)
    assert not alive(pid)
    assert not subprocess.run(["pgrep", "-f", str(target.host / "trtexec")], capture_output=True, check=False).stdout


def test_a_target_that_dies_ends_the_build_in_one_line(
    thor: Callable, sshd, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("csa_deploy.trtexec.files._PAUSE_S", 0.05)
    target = thor("11.1.0")
    (target.folder / "slow").write_text("")

    def die() -> None:
        wait_for(target.folder / "tuner.pid")
        sshd.die()

    killer = threading.Thread(target=die)
    killer.start()
    out = tmp_path / "here" / "net.engine"
    try:
        with pytest.raises(CsaDeployError) as caught, open_machine(load_target(target.file), to_build=True) as machine:
            trtexec_build(machine, graph, out, PLAN, SAFE)
    finally:
        killer.join()
        sshd.start()
    said = caught.value.message  # of whoever notices first: the holder of the lock, or trtexec's own ssh
    assert "broke" in said or "cannot be reached" in said
    assert caught.value.exit_code == 3
    assert "\n" not in caught.value.message
    assert list(out.parent.iterdir()) == []
    for _ in range(400):
        if not (target.folder / "work" / "lock").exists():
            break
        time.sleep(0.05)
    assert target.work == []


def test_the_target_is_held_alone(thor: Callable, graph: Path, tmp_path: Path) -> None:
    """A job that comes while kernels are timed runs after the build."""
    target = thor("11.1.0")
    (target.folder / "slow").write_text("")
    config = load_target(target.file)
    order: list[str] = []

    def other() -> None:
        wait_for(target.folder / "tuner.pid")
        with open_transport(config) as transport:
            (tmp_path / "other").mkdir()
            run_job(transport, config.workdir, Job(["true"], {}), tmp_path / "other")
        order.append("job")

    def release() -> None:
        pid = wait_for(target.folder / "tuner.pid")
        time.sleep(1.5)
        order.append("tuned")
        (target.folder / "slow").unlink()
        subprocess.run(["pkill", "-P", str(pid)], check=False)  # its sleep: it goes on

    threads = [threading.Thread(target=other), threading.Thread(target=release)]
    for thread in threads:
        thread.start()
    with open_machine(config, to_build=True) as machine:
        trtexec_build(machine, graph, tmp_path / "e", PLAN, SAFE)
    for thread in threads:
        thread.join()
    assert order == ["tuned", "job"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_of_the_host(thor: Callable, graph: Path, small_disk: Path, tmp_path: Path) -> None:
    """Told before anything is built where it is known, and in one line where it fills up meanwhile."""
    target = thor("11.1.0")
    for at_once in (True, False):
        out = small_disk / "net.engine"
        with (
            pytest.MonkeyPatch.context() as patch,
            pytest.raises(EnvironmentLacksError) as caught,
            open_machine(load_target(target.file), to_build=True) as machine,
        ):
            if not at_once:
                patch.setattr("csa_deploy.trtexec.safe.build._SPARE_BYTES", 0)
                (small_disk / "filler").write_bytes(bytes(240 << 10))
            trtexec_build(machine, graph, out, PLAN, SAFE)
        assert "disk is full" in caught.value.message and "\n" not in caught.value.message
        assert not out.exists() and target.work == []
        assert (target.folder / "tuned").exists() is not at_once


def test_a_target_that_asks_for_a_password(thor: Callable, sshd, graph: Path, tmp_path: Path) -> None:
    target = thor("11.1.0")
    sshd.client("other")
    try:
        error = refused(target, graph, tmp_path)
    finally:
        sshd.client("user")
    assert "the login is refused" in error.message and "passwords are not asked for" in error.fix


def test_prompt_leaves_the_terminal_to_trtexec(thor: Callable, graph: Path, tmp_path: Path) -> None:
    """With a real terminal, at which the stand-in asks; what is typed there is in no log."""
    target = thor("11.1.0")
    target.say("remote_password: PROMPT\n")
    out = tmp_path / "net.engine"
    program = (
        "from pathlib import Path\n"
        "from csa_deploy.engine.plan import BuildPlan\n"
        "from csa_deploy.trtexec.builder import trtexec_build\n"
        "from csa_deploy.trtexec.config import load_target\n"
        "from csa_deploy.trtexec.machine import open_machine\n"
        "from csa_deploy.trtexec.settings import TrtexecOptions\n"
        f"with open_machine(load_target(Path({str(target.file)!r})), to_build=True) as machine:\n"
        f"    trtexec_build(machine, Path({str(graph)!r}), Path({str(out)!r}), BuildPlan(backend='trtexec'),\n"
        "                  TrtexecOptions(safe=True))\n"
    )
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", program])
    seen = b""
    with contextlib.suppress(OSError):  # the terminal's end
        while chunk := os.read(terminal, 1 << 12):
            seen += chunk
            if b"password: " in seen and b"hunter2" not in seen:
                os.write(terminal, b"hunter2\n")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, seen.decode()
    log = (tmp_path / "net.engine.log").read_text()
    assert "a password of 7 characters" in log and "hunter2" not in log
