"""Samples of a data set under the load generator: its own accuracy log against ONNX Runtime on the same samples."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

import csa_deploy
from csa_deploy.data.arrays import ArrayDataset
from csa_deploy.data.base import Dataset
from csa_deploy.errors import UsageError
from csa_deploy.profile.loadgen.samples import SampleLibrary, SentSamples, most
from csa_deploy.records.loadgen import LoadgenRun
from csa_deploy.records.profile import Profiled
from csa_deploy.spec import TensorSpec
from tests.conftest import COMMAND

pytest.importorskip("mlperf_loadgen", reason="MLPerf's load generator is not installed: the extra mlperf")

QUICK = "*.*.min_duration = 200\n*.*.min_query_count = 16\n*.*.target_latency_percentile = 90\n"
ROW = TensorSpec("x", (1, 8), "float32")


@pytest.fixture()
def place(lab: Path) -> Path:
    """The laboratory, with settings that take a moment."""
    (lab / "quick.conf").write_text(QUICK)
    return lab


def profile(place: Path, csa: Any, network: str, *more: Any) -> Any:
    given = ("--fp32", "--iterations", 2, "--threads", 1, "--loadgen", "--loadgen-settings", "quick.conf")
    return csa(place, "profile", network, *given, *more)


def logged(folder: Path) -> dict[int, np.ndarray]:
    """Outputs by sample as ``mlperf_log_accuracy.json`` has them, decoded without this project's reader."""
    rows = json.loads((folder / "mlperf_log_accuracy.json").read_text())
    return {row["qsl_idx"]: np.frombuffer(bytes.fromhex(row["data"]), "<f4") for row in rows}


def runs(root: Path) -> tuple[LoadgenRun, ...]:
    return Profiled.from_json(json.loads((root / "measurements/profile.json").read_text())).loadgen


def optimized(root: Path) -> Path:
    """The graph that was driven: it goes under ``fp32``."""
    return Path(root / json.loads((root / "records/optimize.json").read_text())["graph"])


def direct(graph: Path, inputs: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options)
    name, batch = session.get_inputs()[0].name, session.get_inputs()[0].shape[0]
    return [session.run(None, {name: inputs[n : n + batch]})[0].ravel() for n in range(0, len(inputs), batch)]


@pytest.mark.parametrize("scenario", ["single-stream", "offline"])
def test_the_accuracy_log_is_onnx_runtime_on_the_samples_of_an_array(place: Path, csa: Any, scenario: str) -> None:
    samples = np.random.default_rng(8).standard_normal((11, 3, 16, 16)).astype("f4")
    np.savez(place / "s.npz", x=samples)
    done = profile(place, csa, "tiny.onnx", "--data", "s.npz", "--scenario", scenario)
    assert done.returncode == 0, done.stderr
    root = place / "deploy/tiny"
    folder = root / "measurements/loadgen/fp32" / scenario
    expected, found = direct(optimized(root), samples), logged(folder / "accuracy")
    assert sorted(found) == list(range(11))
    assert all(np.array_equal(found[n], row) for n, row in enumerate(expected))
    timed = logged(folder / "performance")
    assert timed and all(np.array_equal(row, found[n]) for n, row in timed.items())
    (run,) = runs(root)
    assert (run.outputs.verdict, run.samples) == ("pass", "11 of s.npz")
    contract = json.loads((root / "records/profile.json").read_text())["contract"]["loadgen"]
    assert contract["samples"].startswith("11 of s.npz, sha256 ")
    assert "held against accuracy mode, all bit for bit" in done.stdout


def test_images_are_preprocessed_as_in_verify_and_the_last_batch_is_filled_up(
    place: Path, csa: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of pictures, a batch of 2 that does not divide them, and Pillow as the oracle."""
    monkeypatch.chdir(place)
    draw = np.random.default_rng(9)
    (place / "pictures").mkdir()
    for number in range(5):
        Image.fromarray(draw.integers(0, 256, (32, 32), dtype=np.uint8)).save(place / f"pictures/{number}.png")
    done = profile(place, csa, "csa_digits", "--batch", 2, "--data", "pictures", "--samples", 5)
    assert done.returncode == 0, done.stderr
    root = place / "deploy/csa_digits"
    network = onnx.load(optimized(root))
    stated = {p.key: p.value for p in network.metadata_props}
    preprocessing = json.loads(next(v for k, v in stated.items() if "preprocessing" in k))
    images = [np.asarray(Image.open(place / f"pictures/{n}.png"), "f4") for n in (0, 1, 2, 3, 4, 4)]
    mean, std = (np.asarray(preprocessing[key], "f4").reshape(-1, 1, 1) for key in ("mean", "std"))
    inputs = np.stack([(image[None] / np.float32(255) - mean) / std for image in images]).astype("f4")
    found = logged(root / "measurements/loadgen/fp32/single-stream/accuracy")
    expected = direct(optimized(root), inputs)
    assert sorted(found) == [0, 1, 2]
    for number, row in enumerate(expected):
        np.testing.assert_allclose(found[number], row, rtol=1e-4, atol=1e-4)


def test_a_network_with_data_of_its_own_takes_these(place: Path, csa: Any) -> None:
    done = profile(place, csa, "csa_digits", "--json")
    assert done.returncode == 0, done.stderr
    root = place / "deploy/csa_digits"
    contract = json.loads((root / "records/profile.json").read_text())["contract"]["loadgen"]
    assert contract["samples"].startswith("64 of digits, sha256 ")
    assert runs(root)[0].samples == "64 of digits"


def test_from_python_with_an_array(place: Path) -> None:
    x = np.random.default_rng(1).standard_normal((6, 3, 16, 16)).astype("f4")
    settings = {"threads": 1, "iterations": 2, "warmup": 1, "loadgen_settings": str(place / "quick.conf")}
    found = csa_deploy.profile(str(place / "tiny.onnx"), data=x, samples=4, loadgen=True, **settings)
    assert found.report is not None and found.report.contract.loadgen is not None
    assert found.report.contract.loadgen["samples"].startswith("4 of ")
    with pytest.raises(UsageError, match="data= is about MLPerf's load generator"):
        csa_deploy.profile(str(place / "tiny.onnx"), data=x, threads=1, iterations=2)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--data", "gone"), "gone"),
        (("--data", "other.npz"), "the data do not fit the network"),
        (("--data", "x.npz", "--samples", 0), "samples"),
        (("--data", "x.npz", "--loadgen-settings", "many.conf"), "performance_sample_count_override = 999: the data"),
    ],
)
def test_what_cannot_be_sent_is_one_line_and_two(place: Path, csa: Any, given: tuple[Any, ...], said: str) -> None:
    np.savez(place / "other.npz", x=np.ones((4, 3, 9, 9), "f4"))
    (place / "many.conf").write_text(f"{QUICK}*.*.performance_sample_count_override = 999\n")
    done = profile(place, csa, "tiny.onnx", *given)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert done.stderr.count("csa-deploy: ") == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--data", "x.npz"), "--data is about MLPerf's load generator"),
        (("--samples", 3), "--samples is about MLPerf's load generator"),
        (("--loadgen", "--frame-rate", 12), "--frame-rate is about a constant stream"),
    ],
)
def test_what_would_count_for_nothing_is_refused(place: Path, csa: Any, given: tuple[Any, ...], said: str) -> None:
    done = csa(place, "profile", "tiny.onnx", *given)
    assert done.returncode == 2 and said in done.stderr, done.stderr


def test_a_picture_that_is_cut_short_is_named(place: Path, csa: Any) -> None:
    """Its header is whole, so that it is found in the load generator's own thread."""
    (place / "pictures").mkdir()
    for number in range(3):
        Image.effect_noise((64, 64), 50).save(place / f"pictures/{number}.png")
    whole = (place / "pictures/1.png").read_bytes()
    (place / "pictures/1.png").write_bytes(whole[: len(whole) // 2])
    done = profile(place, csa, "csa_digits", "--data", "pictures")
    assert done.returncode == 2 and "1.png" in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_two_runs_into_one_folder_and_an_interrupt_leave_whole_logs(place: Path, csa: Any) -> None:
    assert profile(place, csa, "tiny.onnx", "--data", "x.npz").returncode == 0
    root = place / "deploy/tiny"
    before = {p: p.read_bytes() for p in (root / "measurements").rglob("*") if p.is_file()}
    (place / "long.conf").write_text(QUICK.replace("200", "60000"))
    words = ("profile", "tiny.onnx", "--loadgen-settings", "long.conf")
    process = subprocess.Popen([COMMAND, *words], cwd=place, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not list(root.rglob("*/performance/audit.config"))[1:]:
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    second = csa(place, *words)
    assert second.returncode == 2 and "another" in second.stderr, second.stderr
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert {p: p.read_bytes() for p in (root / "measurements").rglob("*") if p.is_file()} == before


def test_frames_that_rest_on_others_are_not_sent_alone_and_it_is_said(place: Path, csa: Any, build: Any) -> None:
    """The load generator draws samples in any order: a network with a state gets random inputs, also beside --data."""
    recurrent = build("(float[1,8] x, float[1,8] h) => (float[1,8] y, float[1,8] k)", "k = Add (x, h) y = Relu (k)")
    onnx.save(recurrent, place / "recurrent.onnx")
    np.savez(place / "frames.npz", x=np.ones((6, 8), "f4"))
    done = profile(place, csa, "recurrent.onnx", "--state", "k:h", "--data", "frames.npz")
    assert done.returncode == 0, done.stderr
    (run,) = runs(place / "deploy/recurrent")
    assert run.samples == "random inputs, as a frame rests on those before it"


def rows(folder: Path, count: int) -> Dataset:
    np.savez(folder / "rows.npz", x=np.arange(8 * count, dtype="f4").reshape(count, 8))
    return ArrayDataset(folder / "rows.npz", "rows.npz")


def test_the_library_fits_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = TensorSpec("x", (1, 3, 1024, 2048), "float32")
    assert (most([ROW], []), most([image], []), most([image], [image] * 99)) == (64, 10, 2)
    library = SampleLibrary([ROW], [], SentSamples(3))
    assert library.total == library.performance == 64
    library.load([0, 1])
    first = library[1]["x"]
    library.unload([0, 1])
    library.load([1])
    assert np.array_equal(first, library[1]["x"])
    with pytest.raises(KeyError):
        library[0]
    data, samples_module = rows(tmp_path, 9), sys.modules[SentSamples.__module__]
    monkeypatch.setattr(samples_module, "_LIBRARY_BYTES", 3 * 32)
    limited = SampleLibrary([ROW], [], SentSamples(0, data))
    assert (limited.total, limited.performance) == (9, 3)
    monkeypatch.setattr(samples_module, "_LIBRARY_BYTES", 31)
    assert SampleLibrary([ROW], [], SentSamples(0, data)).performance == 1
    assert SampleLibrary([ROW], [], SentSamples(0, data), 9).performance == 9
    with pytest.raises(UsageError, match="the data give 9 inferences"):
        SampleLibrary([ROW], [], SentSamples(0, data), 10)


def test_every_sample_is_in_one_inference(tmp_path: Path) -> None:
    samples = SentSamples(0, rows(tmp_path, 9))
    three = [TensorSpec("input", (4, 8), "float16")]
    assert samples.count(three, [TensorSpec("y", (4, 1), "float32")]) == 3
    feeds = [samples.feeds(n, three, [TensorSpec("y", (4, 1), "float32")])["input"] for n in range(3)]
    assert all(feed.dtype == np.float16 and feed.shape == (4, 8) for feed in feeds)
    firsts = [int(row[0]) // 8 for feed in feeds for row in feed]
    assert firsts == [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8]
