"""``csa_deploy.quantize(cluster=)`` and ``quantize --cluster``: the graph of one process, byte for byte."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from distributed import Client
from onnx import TensorProto, helper, numpy_helper

import csa_deploy as csa
from tests.cluster.conftest import DaskProcesses, until

Own = Callable[[int], DaskProcesses]
SAMPLES = 40


def network(batch: int) -> onnx.ModelProto:
    """Two convolutions, so that ranges decide something, of a batch that samples may not fill."""
    draw = np.random.default_rng(1)
    weights = {"w": (8, 3, 3, 3), "v": (4, 8, 3, 3)}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["a"], name="first", pads=[1] * 4),
            helper.make_node("Relu", ["a"], ["b"], name="relu"),
            helper.make_node("Conv", ["b", "v"], ["y"], name="second", pads=[1] * 4),
        ],
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (batch, 3, 12, 12))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (batch, 4, 12, 12))],
        [numpy_helper.from_array(draw.standard_normal(shape).astype("f4"), name) for name, shape in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@cache
def samples() -> np.ndarray:
    """Each of another range: a share that is lost, or counted twice, shows."""
    draw = np.random.default_rng(2).standard_normal((SAMPLES, 3, 12, 12))
    return (draw * np.linspace(0.5, 3, SAMPLES)[:, None, None, None]).astype("f4")


@cache
def alone(batch: int) -> bytes:
    return quantized(batch)


def quantized(batch: int, **settings: Any) -> bytes:
    return csa.quantize(network(batch), calib=samples(), threads=1, **settings).graph.SerializeToString()


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_two_workers(dask_cluster: DaskProcesses, batch: int) -> None:
    assert quantized(batch, cluster=dask_cluster.address) == alone(batch)
    fewer = csa.quantize(network(batch), calib=samples()[:-8], threads=1, cluster=dask_cluster.address)
    assert fewer.graph.SerializeToString() != alone(batch), "the last samples show in the bytes"


@pytest.mark.slow
def test_one_and_three_workers(own_cluster: Own) -> None:
    cluster = own_cluster(1)
    assert [quantized(batch, cluster=cluster.address) for batch in (1, 2, 7)] == [alone(b) for b in (1, 2, 7)]
    cluster.add()
    cluster.add()
    assert [quantized(batch, cluster=cluster.address) for batch in (1, 2, 7)] == [alone(b) for b in (1, 2, 7)]


@pytest.mark.slow
def test_a_worker_that_is_killed_in_the_middle(own_cluster: Own, tmp_path: Path) -> None:
    many = np.concatenate([samples()] * 10)
    graph = tmp_path / "two.onnx"
    onnx.save(network(2), graph)
    expected = csa.quantize(str(graph), calib=many, threads=1, workspace=tmp_path / "alone").graph
    cluster, kept = own_cluster(2), list[int]()

    def kill() -> None:
        done = lambda: list((tmp_path / "spread").glob("shares-*/*/*.npz"))  # noqa: E731
        until(lambda: bool(done()))
        cluster.workers[0].kill()
        kept.append(len(done()))

    thread = threading.Thread(target=kill)
    thread.start()
    found = csa.quantize(
        str(graph), calib=many, threads=1, workspace=tmp_path / "spread", cluster=cluster.address
    ).graph
    thread.join()
    assert 0 < kept[0] < 99, "in the middle: the 200 batches are 99 shares of two, behind the first"
    with Client(cluster.address) as client:
        assert len(client.scheduler_info(n_workers=-1)["workers"]) == 1
    assert found.SerializeToString() == expected.SerializeToString()


SCRIPT = """
import numpy as np
import csa_deploy as csa

if __name__ == "__main__":
    x = np.load("x.npz")["x"]
    for cluster in (None, "local:2"):
        int8 = csa.quantize("two.onnx", calib=x, threads=1, cluster=cluster)
        held = csa.compare("two.onnx", int8, data=x[:9] + 1, threads=1, cluster=cluster)
        print(hash((int8.graph.SerializeToString(), held.stored)))
"""


@pytest.mark.slow
def test_local_workers_from_a_script_and_from_the_command(tmp_path: Path, csa: Any) -> None:
    onnx.save(network(2), tmp_path / "two.onnx")
    np.savez(tmp_path / "x.npz", x=samples())
    np.savez(tmp_path / "y.npz", x=samples()[:9] + 1)
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    one, two = done.stdout.split()
    assert one == two, done.stderr
    command = ("quantize", "two.onnx", "--int8", "--calib", "x.npz", "--data", "y.npz", "--threads", 1, "--json")
    said = [csa(tmp_path, *command, "-w", f"w{n}", *more) for n, more in enumerate([(), ("--cluster", "local:2")])]
    assert [done.returncode for done in said] == [0, 0], said[1].stderr
    graphs = [{p.name: p.read_bytes() for p in (tmp_path / w).rglob("*int8*.onnx")} for w in ("w0", "w1")]
    assert graphs[0] and graphs[0] == graphs[1]
