"""Recurrent state: each side on its own state; loops written by hand on ONNX Runtime alone are the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from PIL import Image

from csa_deploy.config import make_config
from csa_deploy.context import Context
from csa_deploy.data.sequences import open_sequences
from csa_deploy.errors import CsaDeployError, UsageError
from csa_deploy.graph.fp16_rounding import keep_rounding
from csa_deploy.network import Preprocessing
from csa_deploy.pipeline import run_stages
from csa_deploy.precision import int8_stage
from csa_deploy.precision.selection import read_samples
from csa_deploy.source import load_source
from csa_deploy.spec import TensorSpec
from csa_deploy.state import StateLink, initial_state, links_of
from csa_deploy.workspace import Workspace

LENGTHS = (7, 4, 5)
BODY = "a = MatMul(x, w) b = MatMul(memory, u) s = Add(a, b) next = Tanh(s) y = MatMul(next, v)"
SIGNATURE = "(float[1,6] x, float[1,8] memory) => (float[1,3] y, float[1,8] next)"


@pytest.fixture()
def place(tmp_path: Path, build: Any) -> Path:
    """A recurrent network, three sequences to compare on and three to calibrate on."""
    draw = np.random.default_rng(5)
    weights = {n: draw.standard_normal(s).astype("f4") / 2 for n, s in (("w", (6, 8)), ("u", (8, 8)), ("v", (8, 3)))}
    onnx.save(build(SIGNATURE, BODY, **weights), tmp_path / "memory.onnx")
    for name in ("data", "calib"):
        (tmp_path / name).mkdir()
        for number, length in enumerate(LENGTHS):
            frames = draw.standard_normal((length, 6)).astype("f4")
            np.savez(tmp_path / name / f"drive{number}.npz", x=frames)
    return tmp_path


def run(place: Path, stages: list[str], **settings: Any) -> tuple[Context, CsaDeployError | None]:
    given = {"network": str(place / "memory.onnx"), "state": ["next:memory"], "data": str(place / "data")}
    config = make_config({**given, "threads": 1, **settings})
    workspace = Workspace(place / "w")
    context = Context(config, load_source(config.network), workspace)
    with workspace.locked():
        return context, run_stages(stages, context)


def sequences(place: Path, name: str = "data") -> list[np.ndarray]:
    return [np.load(file)["x"] for file in sorted((place / name).iterdir())]


def as_it_stands(graph: Path) -> ort.InferenceSession:
    """ONNX Runtime with every FP16 tensor rounded and without fusions, as reduced precisions are run here."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(keep_rounding(onnx.load(graph)).SerializeToString(), options)


def looped(graph: Path, frames: np.ndarray, first: np.ndarray | None = None) -> list[dict[str, np.ndarray]]:
    """The network frame by frame, its own state fed back, in ONNX Runtime alone; also what each frame was given."""
    session = as_it_stands(graph)
    state, found = np.zeros((1, 8), "f4") if first is None else first, []
    for frame in frames:
        y, after = session.run(["y", "next"], {"x": frame[None], "memory": state})
        found.append({"y": y, "next": after, "memory": state})
        state = after
    return found


def test_each_side_runs_on_its_own_state(place: Path) -> None:
    context, _ = run(
        place,
        ["verify", "report"],
        calib=str(place / "calib"),
        precision=["fp32", "int8"],
        search=False,
        techniques="none",
    )
    record, export = context.workspace.record("verify"), context.workspace.record("export")
    assert export["state"] == [{"output": "next", "input": "memory"}] and record["data"]["samples"] == sum(LENGTHS)
    graphs = {c["label"]: place / "w" / c["path"] for c in record["candidates"]}
    want = [looped(place / "memory.onnx", frames) for frames in sequences(place)]
    got = [looped(graphs["int8"], frames) for frames in sequences(place)]
    grown = next(g for g in record["growth"] if (g["candidate"], g["output"]) == ("int8", "y"))
    assert grown["sequences"] == [sum(length > t for length in LENGTHS) for t in range(max(LENGTHS))]
    for t in range(max(LENGTHS)):
        pairs = [(w[t]["y"].astype("f8"), g[t]["y"].astype("f8")) for w, g in zip(want, got, strict=True) if t < len(w)]
        signal, noise = sum((w**2).sum() for w, _ in pairs), sum(((w - g) ** 2).sum() for w, g in pairs)
        assert grown["max_abs_error"][t] == pytest.approx(max(np.abs(w - g).max() for w, g in pairs), rel=1e-4)
        assert grown["snr_db"][t] == pytest.approx(10 * np.log10(signal / noise), abs=1e-3)
    # On the reference's states the errors are others: the comparison is not forced.
    session = as_it_stands(graphs["int8"])
    first = zip(sequences(place)[0], want[0], strict=True)
    forced = [session.run(["y"], {"x": frame[None], "memory": w["memory"]})[0] for frame, w in first]
    assert max(np.abs(a - b["y"]).max() for a, b in zip(forced[1:], got[0][1:], strict=True)) > 1e-4
    exact = next(g for g in record["growth"] if (g["candidate"], g["output"]) == ("fp32", "next"))
    assert max(exact["max_abs_error"]) < 1e-5
    assert any("error over frames, each on its own state: int8, output 'y'" in note for note in record["notes"])
    page = (place / "w" / "report.html").read_text()
    assert "Error over frames of" in page and "Signal-to-noise ratio over the frames of" in page


def test_calibration_takes_the_states_of_the_fp32_graph(place: Path) -> None:
    context, _ = run(place, ["export"], calib=str(place / "calib"))
    with context.workspace.locked():
        frames = context.with_states(int8_stage._open(context))
    want = [found["memory"] for each in sequences(place, "calib") for found in looped(place / "memory.onnx", each)]
    got = np.concatenate([batch.inputs["memory"] for batch in frames.batches(1)])
    np.testing.assert_array_equal(got, np.concatenate(want))
    few = read_samples(frames, context.sampling, 5).feeds  # frames out of the middle of sequences
    chosen = [i * sum(LENGTHS) // 5 for i in range(5)]
    np.testing.assert_array_equal(np.concatenate([f["memory"] for f in few]), np.concatenate([want[i] for i in chosen]))
    again = frames.only([frames.identities()[9], frames.identities()[2]])
    np.testing.assert_array_equal(
        np.concatenate([b.inputs["memory"] for b in again.batches(2)]), [want[2][0], want[9][0]]
    )


def test_the_first_state_is_zero_or_of_a_file(place: Path) -> None:
    first = np.full((1, 8), 0.5, "f4")
    np.savez(place / "first.npz", memory=first)
    context, failure = run(place, ["verify"], state_init=str(place / "first.npz"), precision=["fp32"])
    assert failure is None
    with context.workspace.locked():
        frames = context.with_states(context.dataset(None))  # type: ignore[arg-type]
    want = [found["memory"] for each in sequences(place) for found in looped(place / "memory.onnx", each, first)]
    np.testing.assert_array_equal(np.concatenate([b.inputs["memory"] for b in frames.batches(4)]), np.concatenate(want))
    inputs = [TensorSpec("x", (1, 6), "float32"), TensorSpec("memory", (1, 8), "float32")]
    np.savez(place / "wrong.npz", memory=first[:, :3])
    np.savez(place / "other.npz", memori=first)
    for file, said in (("wrong", r"'memory' has the shape \[1, 3\]"), ("other", "did you mean 'memory'")):
        with pytest.raises(UsageError, match=said):
            initial_state([StateLink("next", "memory")], inputs, place / f"{file}.npz")
    with pytest.raises(UsageError, match=r"--state-init .*none.npz: no such file"):
        run(place, ["export"], state_init=str(place / "none.npz"))


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        (["next"], "--state next: no link"),
        (["nxt:memory"], "unknown output 'nxt', did you mean 'next'"),
        (["next:memori"], "unknown input 'memori', did you mean 'memory'"),
        (["y:memory"], r"the output is float32 \[1, 3\], the input float32 \[1, 8\]"),
        (["next:memory", "twin:memory"], "input 'memory' is fed twice"),
        (["next:memory", "six:x"], "every input is a state"),
    ],
)
def test_links_that_do_not_fit_are_one_line(stated: list[str], said: str) -> None:
    inputs = [TensorSpec("x", (1, 6), "float32"), TensorSpec("memory", (1, 8), "float32")]
    outputs = [TensorSpec(n, (1, e), "float32") for n, e in (("y", 3), ("next", 8), ("twin", 8), ("six", 6))]
    assert links_of(["next:memory"], inputs, outputs) == (StateLink("next", "memory"),)
    with pytest.raises(UsageError, match=said) as error:
        links_of(stated, inputs, outputs)
    assert "\n" not in str(error.value) and error.value.fix


def test_names_with_colons_and_types_of_state(place: Path) -> None:
    half, full = TensorSpec("s:0", (1, 8), "float16"), TensorSpec("s:1", (1, 8), "float16")
    x = TensorSpec("x", (1, 6), "float32")
    assert links_of(["s:1:s:0"], [x, half], [full]) == (StateLink("s:1", "s:0"),)
    with pytest.raises(UsageError, match=r"float32 \[1, 8\], the input float16"):
        links_of(["o:s:0"], [x, half], [TensorSpec("o", (1, 8), "float32")])


def test_several_samples_at_a_time_are_refused(place: Path, build: Any) -> None:
    signature = SIGNATURE.replace("[1,", "[4,")
    onnx.save(build(signature, BODY, w=(6, 8), u=(8, 8), v=(8, 3)), place / "memory.onnx")
    with pytest.raises(UsageError, match="one inference takes 4 samples, and each has a sequence of its own"):
        run(place, ["export"])


def test_evaluation_starts_each_sequence_anew(place: Path, csa: Any) -> None:
    """Top-1 of labels that the loop itself gives is 100 %, and less where the state is never reset."""
    for number, frames in enumerate(sequences(place)):
        labels = [int(found["y"].argmax()) for found in looped(place / "memory.onnx", frames)]
        np.savez(place / "data" / f"drive{number}.npz", x=frames, labels=labels)
    run_of = csa(place, "evaluate", "memory.onnx", "--state", "next:memory", "--data", "data", "--json")
    assert run_of.returncode == 2 and "top-1 and top-5 need one output" in run_of.stderr  # y and the state
    (place / "top.py").write_text(
        "class Right:\n    unit = 'share'\n    additive = True\n"
        "    def update(self, outputs, target):\n        return [float(outputs['y'].argmax() == target), 1.0]\n"
        "    def reduce(self, rows):\n        return rows[:, 0].sum() / rows[:, 1].sum()\n"
    )
    metric = ("--metric", "top.py:Right")
    run_of = csa(place, "evaluate", "memory.onnx", "--state", "next:memory", "--data", "data", *metric)
    assert run_of.returncode == 0 and "Right 100.00 %" in run_of.stdout, run_of.stdout + run_of.stderr


def test_sequences_come_in_their_forms(place: Path) -> None:
    """A folder of arrays, one file with numbers, a list, and folders of images give the same frames and places."""
    folder = open_sequences(str(place / "data"), None)
    together = np.concatenate(sequences(place))
    numbers = np.repeat([3, 1, 7], LENGTHS)
    np.savez(place / "all.npz", x=together, sequences=numbers)
    (place / "list.txt").write_text("# of one day\ndata/drive0.npz\ndata/drive1.npz\ndata/drive2.npz\n")
    for found in (folder, open_sequences(str(place / "all.npz"), None), open_sequences(str(place / "list.txt"), None)):
        batches = list(found.batches(5))
        np.testing.assert_array_equal(np.concatenate([b.inputs["x"] for b in batches]), together)
        frames = [frame for batch in batches for frame in batch.frames]
        assert frames == [t for length in LENGTHS for t in range(length)] and len(set(found.identities())) == 16
    part = folder.take([1, 8, 15])
    assert [b.frames for b in part.batches(3)] == [(1, 1, 4)] and part.identities()[2] == "drive2/4"
    np.testing.assert_array_equal(next(part.batches(3)).inputs["x"], together[[1, 8, 15]])
    assert [len(folder.beginning(n)) for n in (16, 13, 7, 3)] == [16, 11, 7, 3]
    np.savez(place / "mixed.npz", x=together[:4], sequences=[0, 1, 0, 1])
    with pytest.raises(UsageError, match="frames of a sequence are apart"):
        open_sequences(str(place / "mixed.npz"), None)
    with pytest.raises(UsageError, match=r"gone: no sequence"):
        open_sequences(str(place / "gone"), None)
    for name, count in (("a", 2), ("b", 3)):
        (place / "drives" / name).mkdir(parents=True)
        for t in range(count):
            Image.new("RGB", (8, 8), (t, 0, 0)).save(place / "drives" / name / f"{t:03}.png")
    images = open_sequences(str(place / "drives"), Preprocessing((8, 8)))
    assert images.identities() == ["a/000.png", "a/001.png", "b/000.png", "b/001.png", "b/002.png"]
    assert [b.frames for b in images.batches(9)] == [(0, 1, 0, 1, 2)]
    assert np.asarray(images.image("b/002.png")).max() == 2
