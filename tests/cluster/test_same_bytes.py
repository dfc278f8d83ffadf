"""On workers of a cluster comes out, byte for byte, what comes out of one process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from distributed import Client
from PIL import Image

import csa_deploy as csa
from csa_deploy.cluster.worker import TOPIC
from csa_deploy.config import make_config
from csa_deploy.context import Context
from csa_deploy.errors import CsaDeployError, UsageError
from csa_deploy.pipeline import run_stages
from csa_deploy.source import load_source
from csa_deploy.verify.results import PARTIAL, SAMPLES
from csa_deploy.workspace import Workspace
from tests.cluster.conftest import DaskProcesses

Own = Callable[[int], DaskProcesses]


def feature_maps(batch: int) -> onnx.ModelProto:
    """Output (batch, 4, 8, 8): a map, whose sums by channel depend on the order of the samples."""
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(1).standard_normal((4, 3, 3, 3)).astype("f4")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[1] * 4)],
        "maps",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (batch, 3, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (batch, 4, 8, 8))],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def compared(model: onnx.ModelProto, data: Any, **settings: Any) -> tuple[bytes, dict[str, Any]]:
    found = csa.compare(model, [csa.to_fp16(model)], data=data, threads=1, **settings)
    return found.stored, found.report.to_json()


@pytest.mark.parametrize(
    ("samples", "batch"),
    [
        pytest.param(1, 1, id="one sample"),
        pytest.param(3, 1, id="one share for two workers"),
        pytest.param(9, 4, id="a batch that does not divide"),
        pytest.param(40, 1, id="many shares"),
    ],
)
def test_a_comparison(dask_cluster: DaskProcesses, samples: int, batch: int) -> None:
    data = np.random.default_rng(2).standard_normal((samples, 3, 8, 8)).astype("f4")
    alone = compared(feature_maps(batch), data)
    assert compared(feature_maps(batch), data, cluster=dask_cluster.address) == alone


def test_a_network_that_is_code_with_labels(
    dask_cluster: DaskProcesses, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of one's own and data, both by paths from the folder that the command runs in."""
    monkeypatch.chdir(lab)
    draw = np.random.default_rng(3)
    np.savez("more.npz", x=draw.standard_normal((11, 3, 16, 16)).astype("f4"), labels=np.arange(11) % 10)
    exported = csa.export("nets.py:tiny")
    half = csa.to_fp16(exported.graph)
    found = [csa.compare(exported, half, data="more.npz", cluster=c) for c in (None, dask_cluster.address)]
    assert found[0].stored == found[1].stored and found[0].report == found[1].report


def test_artifacts_travel_once_to_each_worker(dask_cluster: DaskProcesses) -> None:
    data = np.random.default_rng(4).standard_normal((30, 3, 8, 8)).astype("f4")
    with Client(dask_cluster.address) as client:
        before = len(client.get_events(TOPIC))
        for _ in range(2):
            compared(feature_maps(1), data, cluster=dask_cluster.address)
        came = [event for _, event in client.get_events(TOPIC)][before:]
        by = [(event["worker"], event["fetched"]) for event in came]
    assert by and len(by) == len(set(by))
    sent = {event["bytes"] for event in came}
    assert any(size > data.nbytes for size in sent), "the arrays are an artifact"


def deployed(root: Path, data: Path, **settings: Any) -> Context:
    given = {"network": "nets.py:tiny", "data": str(data), "threads": 1, "localize": False, **settings}
    config = make_config(given)
    return Context(config, load_source(config.network), Workspace(root))


def images(folder: Path, count: int, seed: int = 6) -> Path:
    folder.mkdir()
    draw = np.random.default_rng(seed)
    for number in range(count):
        Image.fromarray(draw.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(folder / f"{number:03}.png")
    return folder


def verified(context: Context) -> CsaDeployError | None:
    with context.workspace.locked():
        return run_stages(["verify"], context)


def test_a_poisoned_sample_is_named_as_without_a_cluster(
    dask_cluster: DaskProcesses, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(lab)
    data = images(lab / "images", 40)
    for name in ("017.png", "031.png"):  # headers are whole: what is wrong is found where the sample's turn comes
        whole = (data / name).read_bytes()
        (data / name).write_bytes(whole[: len(whole) // 2])
    said, partial = [], []
    for cluster in (None, dask_cluster.address):
        context = deployed(lab / f"w{len(said)}", data, cluster=cluster)
        with pytest.raises(UsageError) as error:
            verified(context)
        said.append(str(error.value))
        partial.append((context.workspace.root / PARTIAL).read_bytes())
    assert said[0] == said[1] and "017.png" in said[0]
    assert partial[0] == partial[1]


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=["lost", "slower"])
def test_a_worker_that_is_lost_or_slow_changes_nothing(
    own_cluster: Own, lab: Path, monkeypatch: pytest.MonkeyPatch, end: signal.Signals
) -> None:
    monkeypatch.chdir(lab)
    data = images(lab / "images", 60)
    alone = deployed(lab / "alone", data)
    verified(alone)
    cluster = own_cluster(2)
    context, hit = deployed(lab / "spread", data, cluster=cluster.address), list[int]()
    timers = list[threading.Timer]()

    def progress(done: int, total: int, said: str = "") -> None:
        if "worker" in said and 10 <= done < total and not hit:
            hit.append(done)
            os.kill(cluster.workers[0].pid, end)
            if end == signal.SIGSTOP:
                timers.append(threading.Timer(3, os.kill, (cluster.workers[0].pid, signal.SIGCONT)))
                timers[0].start()

    class Watching:
        def started(self, stage: Any) -> None: ...
        def finished(self, *given: Any) -> None: ...
        def progress(self, stage: Any, *given: Any) -> None:
            progress(*given)

    with context.workspace.locked():
        run_stages(["verify"], context, Watching())
    assert hit, "the worker was hit in the middle"
    for file in (SAMPLES, "records/verify.json"):
        assert (context.path(file)).read_bytes() == alone.path(file).read_bytes()
    assert not list(context.workspace.root.glob("shares-*"))


def test_one_process_evaluates_as_a_cluster_does(dask_cluster: DaskProcesses, lab: Path, csa: Any) -> None:
    data = lab / "more.npz"
    draw = np.random.default_rng(3)
    np.savez(data, x=draw.standard_normal((23, 3, 16, 16)).astype("f4"), labels=np.arange(23) % 10)
    command = ("evaluate", "tiny.onnx", "--data", "more.npz", "--threads", 1, "--json")
    alone, spread = csa(lab, *command), csa(lab, *command, "--cluster", dask_cluster.address)
    assert alone.returncode == spread.returncode == 0, spread.stderr
    assert alone.stdout == spread.stdout


def test_what_lies_at_a_path_now_is_evaluated(
    dask_cluster: DaskProcesses, lab: Path, csa: Any, build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that has the job of the command before open, under the same names: another graph, then other data."""
    monkeypatch.setenv("PYTHONHASHSEED", "0")  # a pickled set of strings then is the same in every command
    draw = np.random.default_rng(3)

    def data() -> None:
        np.savez(lab / "d.npz", x=draw.standard_normal((40, 3, 2, 2)).astype("f4"), labels=np.arange(40) % 10)

    def graph() -> None:
        weight = draw.standard_normal((12, 10)).astype("f4")
        text = "(float[1,3,2,2] x) => (float[1,10] y)", "f = Flatten (x) y = MatMul (f, w)"
        onnx.save(build(*text, w=weight), lab / "n.onnx")

    command = ("evaluate", "n.onnx", "--data", "d.npz", "--threads", 1, "--json")
    data()
    said = []
    for change in (graph, graph, data):
        change()
        alone, spread = csa(lab, *command), csa(lab, *command, "--cluster", dask_cluster.address)
        assert alone.returncode == spread.returncode == 0, spread.stderr
        assert alone.stdout == spread.stdout
        said.append(alone.stdout)
    assert len(set(said)) == 3, "each change shows"


def test_one_process_calibrates_as_a_cluster_does(
    dask_cluster: DaskProcesses, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(lab)
    images(lab / "calib", 30)
    (lab / "calib" / "011.png").write_bytes(b"no image")  # skipped, and said
    images(lab / "data", 5, seed=7)
    found = []
    for number, cluster in enumerate((None, dask_cluster.address)):
        context = deployed(
            lab / f"q{number}", lab / "data", precision="fp32,int8", calib=str(lab / "calib"), cluster=cluster
        )
        with context.workspace.locked():
            run_stages(["precision"], context)
        root = context.workspace.root
        found.append([(root / f).read_bytes() for f in ("calibration/statistics.npz", "records/precision.json")])
        assert b"011.png" in found[-1][1]
    assert found[0] == found[1]
