"""What keeps a cluster from being used is one line with its exit code; what an interrupted run did is kept."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import csa_deploy
from csa_deploy.config import make_config
from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.verify.results import SAMPLES
from tests.cluster.conftest import DaskProcesses, until
from tests.cluster.test_same_bytes import images
from tests.conftest import COMMAND, tiny_model

Own = Callable[[int], DaskProcesses]


def closed_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.parametrize("given", ["tcp://host", "host:8786", "local:0", "local:x", "http://host:1", ""])
def test_what_is_no_cluster(given: str) -> None:
    with pytest.raises(UsageError, match="no cluster: give local, local:N"):
        make_config({"cluster": given})


@pytest.mark.parametrize("given", ["local", "local:2", "tcp://a.b:8786", "tls://10.0.0.1:1"])
def test_what_is_one(given: str) -> None:
    assert make_config({"cluster": given}).cluster == given


@pytest.mark.parametrize("verb", ["verify", "evaluate", "quantize"])
def test_no_scheduler_there(csa: Any, lab: Path, verb: str) -> None:
    address = f"tcp://127.0.0.1:{closed_port()}"
    done = csa(lab, verb, "tiny.onnx", "--data", "x.npz", "--cluster", address)
    assert done.returncode == 3
    assert f"--cluster {address}: no scheduler answers there within 5 seconds" in flat(done.stderr)
    assert "Traceback" not in done.stderr


def flat(text: str) -> str:
    """As one line: a terminal wraps."""
    return " ".join(text.split())


def test_a_scheduler_without_workers(own_cluster: Own, lab: Path) -> None:
    with pytest.raises(EnvironmentLacksError, match="has no workers, and none came within 10 seconds"):
        csa_deploy.compare(tiny_model(), tiny_model(), data=str(lab / "x.npz"), cluster=own_cluster(0).address)


def test_a_worker_with_another_version_is_refused_by_name(own_cluster: Own, lab: Path) -> None:
    cluster = own_cluster(1)
    other = lab / "other"
    (other / "onnxruntime-0.1.dist-info").mkdir(parents=True)
    (other / "onnxruntime-0.1.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: onnxruntime\nVersion: 0.1\n"
    )
    cluster.add(env={"PYTHONPATH": str(other)})
    with pytest.raises(EnvironmentLacksError, match=r"worker tcp://\S+ has onnxruntime 0.1, this machine has \d"):
        csa_deploy.compare(tiny_model(), tiny_model(), data=str(lab / "x.npz"), cluster=cluster.address)


def folder_by_number(folder: Path) -> int:
    """A descriptor of a folder, under the same number in the workers that get it: ``/proc/self/fd/N`` is another folder
    in each process."""
    opened = os.open(folder, os.O_RDONLY)
    os.dup2(opened, 200)
    os.close(opened)
    return 200


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="folders by descriptor are Linux's")
def test_a_worker_without_the_data(
    own_cluster: Own, dask_cluster: DaskProcesses, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(lab)
    graph = csa_deploy.export("nets.py:tiny").graph
    own, other = images(lab / "own", 30), images(lab / "other", 30)
    number = folder_by_number(own)
    data = f"/proc/self/fd/{number}"
    try:
        with pytest.raises(EnvironmentLacksError, match=r"worker tcp://\S+ cannot take part: .*000.png"):
            csa_deploy.compare(graph, graph, data=data, cluster=dask_cluster.address)
        pixels = (other / "021.png").read_bytes()
        (other / "021.png").write_bytes((other / "020.png").read_bytes())
        cluster = own_cluster(0)
        os.dup2(there := os.open(other, os.O_RDONLY), number)
        cluster.add(pass_fds=(number,))
        os.dup2(mine := os.open(own, os.O_RDONLY), number)
        with pytest.raises(EnvironmentLacksError, match=r"worker tcp://\S+ has another file of sample 021.png"):
            csa_deploy.compare(graph, graph, data=data, cluster=cluster.address)
        (other / "021.png").write_bytes(pixels)
        assert csa_deploy.compare(graph, graph, data=data, cluster=cluster.address).stored
        (other / "000.png").write_bytes((other / "001.png").read_bytes())
        with pytest.raises(
            EnvironmentLacksError, match=r"cannot take part: it gives other numbers for the first samples"
        ):
            csa_deploy.compare(graph, graph, data=data, cluster=cluster.address)
        os.close(there)
        os.close(mine)
    finally:
        os.close(number)


def test_dask_is_not_installed(lab: Path) -> None:
    """In a Python that does not find it, as one without the extra."""
    program = (
        "import sys\n"
        "from importlib.machinery import PathFinder as P\n"
        "real = P.find_spec\n"
        "P.find_spec = staticmethod(lambda name, *more: None if name == 'distributed' else real(name, *more))\n"
        "from csa_deploy.cli.main import main\n"
        "sys.argv = ['csa-deploy', 'evaluate', 'tiny.onnx', '--data', 'x.npz', '--cluster', 'local']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=lab, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "--cluster: Dask is not installed" in flat(done.stderr) and "[scale]" in flat(done.stderr)


@pytest.mark.slow
def test_an_interrupt_keeps_what_is_done(dask_cluster: DaskProcesses, lab: Path, csa: Any) -> None:
    images(lab / "images", 300)
    base = ("verify", "nets.py:tiny", "--data", "images", "--threads", "1", "--no-localize", "--cluster")
    command = [COMMAND, *base, dask_cluster.address, "-w", "w", "-v"]
    process = subprocess.Popen(command, cwd=lab, stderr=subprocess.PIPE, text=True)
    until(lambda: len(list((lab / "w").glob("shares-verify/*/*.npz"))) >= 3)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    kept = sum(int(b) - int(a) for a, b in (f.stem.split("-") for f in (lab / "w").glob("shares-verify/*/*.npz")))
    assert 0 < kept < 298
    again = subprocess.run(command, cwd=lab, capture_output=True, text=True, check=False)
    said = re.search(r"(\d+) of 300 samples are kept from an interrupted run", flat(again.stderr))
    assert said and int(said[1]) == kept
    alone = csa(lab, *base[:-1], "-w", "alone")
    assert again.returncode == alone.returncode
    for file in (SAMPLES, "records/verify.json"):
        assert (lab / "w" / file).read_bytes() == (lab / "alone" / file).read_bytes()
    assert not list((lab / "w").glob("shares-*"))


def test_frames_of_a_sequence_stay_together(lab: Path, build: Any, csa: Any) -> None:
    shape = "float[1,3,8,8]"
    model = build(f"({shape} x, {shape} s) => ({shape} y, {shape} t)", "y = Add(x, s) t = Mul(y, s)")
    frames = np.zeros((4, 3, 8, 8), np.float32)
    np.savez(lab / "frames.npz", x=frames, sequences=np.array([0, 0, 1, 1]))
    onnx.save(model, lab / "net.onnx")
    done = csa(lab, "verify", "net.onnx", "--state", "t:s", "--data", "frames.npz", "--cluster", "local:1")
    assert done.returncode == 2
    said = "--cluster: a frame of a sequence rests on those before it, so its samples cannot be run apart"
    assert said in flat(done.stderr)
