"""Overlap, suppression and decoding against ONNX Runtime, onnx.reference, and loops over single boxes."""

import math

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from csa_deploy.boxes import Detections, Postprocessing, overlaps, sigmoid, suppress


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corner = rng.integers(0, 40, (count, 2))
    return np.concatenate([corner, corner + rng.integers(1, 30, (count, 2))], axis=1).astype(np.float64)


def _nms_model(iou: float, score: float, most: int) -> onnx.ModelProto:
    names = [("boxes", TensorProto.FLOAT), ("scores", TensorProto.FLOAT)]
    constants = [
        helper.make_tensor("most", TensorProto.INT64, [1], [most]),
        helper.make_tensor("iou", TensorProto.FLOAT, [1], [iou]),
        helper.make_tensor("score", TensorProto.FLOAT, [1], [score]),
    ]
    node = helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "iou", "score"], ["chosen"])
    graph = helper.make_graph(
        [node],
        "nms",
        [helper.make_tensor_value_info(n, t, [None] * 3) for n, t in names],
        [helper.make_tensor_value_info("chosen", TensorProto.INT64, [None, 3])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)


def _chosen(model: onnx.ModelProto, xyxy: np.ndarray, scores: np.ndarray, engine: str) -> set[tuple[int, int]]:
    feeds = {"boxes": xyxy[None].astype(np.float32), "scores": scores.T[None].astype(np.float32)}
    if engine == "onnx.reference":
        (rows,) = ReferenceEvaluator(model).run(None, feeds)
    else:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        (rows,) = session.run(None, feeds)
    return {(int(box), int(kind)) for _, kind, box in rows}


@pytest.mark.parametrize("engine", ["onnxruntime", "onnx.reference"])
@pytest.mark.parametrize("seed", range(10))
def test_class_wise_suppression_is_that_of_onnx(engine: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    xyxy, scores = _boxes(rng, 60), rng.random((60, 3))
    wanted = _chosen(_nms_model(0.4, 0.3, 100), xyxy, scores, engine)
    cells, classes = np.nonzero(scores > 0.3)
    kept = suppress(Detections(xyxy[cells], scores[cells, classes], classes), 0.4)
    place = {s: (int(b), int(c)) for b, c, s in zip(cells, classes, scores[cells, classes], strict=True)}
    assert {place[s] for s in kept.scores.tolist()} == wanted
    assert (np.diff(kept.scores) <= 0).all()


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_suppression_by_brute_force(agnostic: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 40))
    found = Detections(_boxes(rng, count), rng.integers(0, 5, count) / 5, rng.integers(0, 2, count))
    iou, kept = 0.3, []
    for i in sorted(range(count), key=lambda i: (-found.scores[i], i)):
        clash = [k for k in kept if agnostic or found.classes[k] == found.classes[i]]
        if all(_iou(found.xyxy[k], found.xyxy[i]) <= iou for k in clash):
            kept.append(i)
    got = suppress(found, iou, class_agnostic=agnostic)
    assert np.array_equal(got.xyxy, found.xyxy[kept])
    assert np.array_equal(suppress(found, iou, class_agnostic=agnostic, most=3).xyxy, found.xyxy[kept[:3]])


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@given(st.integers(0, 2**32 - 1))
def test_overlap_counts_the_pixels_of_both(seed: int) -> None:
    a, b = _boxes(np.random.default_rng(seed), 2).astype(int)
    grid = np.zeros((2, 80, 80), bool)
    for side, (left, top, right, bottom) in enumerate((a, b)):
        grid[side, top:bottom, left:right] = True
    wanted = (grid[0] & grid[1]).sum() / (grid[0] | grid[1]).sum()
    assert overlaps(a[None].astype(float), b[None].astype(float))[0, 0] == pytest.approx(wanted, abs=1e-15)


def test_a_box_without_area_overlaps_nothing() -> None:
    flat = np.asarray([[5.0, 5.0, 5.0, 9.0], [7.0, 7.0, 3.0, 3.0]])
    assert (overlaps(flat, np.asarray([[0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 5.0, 9.0]])) == 0).all()


def test_an_overlap_of_just_the_threshold_stays_and_one_above_goes() -> None:
    pair = Detections(np.asarray([[0.0, 0.0, 2.0, 1.0], [1.0, 0.0, 3.0, 1.0]]), np.asarray([0.9, 0.8]), np.zeros(2))
    assert len(suppress(pair, 1 / 3)) == 2
    assert len(suppress(pair, np.nextafter(1 / 3, 0))) == 1


@pytest.mark.parametrize("reach", ["none", "exp", "softplus"])
@pytest.mark.parametrize(("activation", "unit"), [("sigmoid", "stride"), ("none", "pixel")])
def test_decoding_cell_by_cell(reach: str, activation: str, unit: str) -> None:
    rng = np.random.default_rng(3)
    outputs = {
        name: rng.random((2, channels, side, side + 1)) for side in (4, 2) for name, channels in _of(side).items()
    }
    how = Postprocessing(("s4", "s2"), ("d4", "d2"), (8, 16), activation, reach, unit, score_threshold=0.0, nms_iou=1.0)  # type: ignore[arg-type]
    found = how(outputs)
    for sample in range(2):
        wanted = set()
        for side, stride in ((4, 8), (2, 16)):
            for row in range(side):
                for column in range(side + 1):
                    sides = outputs[f"d{side}"][sample, :, row, column]
                    left, top, right, bottom = (_reached(reach, float(v)) for v in sides)
                    factor = 1 if unit == "pixel" else stride
                    x, y = (column + 0.5) * stride, (row + 0.5) * stride
                    box = (x - left * factor, y - top * factor, x + right * factor, y + bottom * factor)
                    for kind in range(3):
                        raw = outputs[f"s{side}"][sample, kind, row, column]
                        score = 1 / (1 + np.exp(-raw)) if activation == "sigmoid" else raw
                        wanted.add((kind, round(float(score), 9), *(round(float(v), 6) for v in box)))
        got = {
            (int(c), round(float(s), 9), *(round(float(v), 6) for v in box))
            for c, s, box in zip(found[sample].classes, found[sample].scores, found[sample].xyxy, strict=True)
        }
        assert got == wanted


def _reached(reach: str, raw: float) -> float:
    return {"none": raw, "exp": math.exp(raw), "softplus": math.log1p(math.exp(raw))}[reach]


def _of(side: int) -> dict[str, int]:
    return {f"s{side}": 3, f"d{side}": 4}


def test_thresholds_on_both_sides_and_the_strongest_class_of_a_cell() -> None:
    scores = np.zeros((1, 2, 1, 2))
    scores[0, :, 0, 0], scores[0, :, 0, 1] = (0.5, 0.4), (0.2, 0.1)
    outputs = {"s": scores, "d": np.full((1, 4, 1, 2), 0.5)}
    how = Postprocessing(("s",), ("d",), (8,), "none", score_threshold=0.2)
    assert how(outputs)[0].scores.tolist() == [0.5, 0.4, 0.2]
    assert how.with_thresholds(score_threshold=0.200001)(outputs)[0].scores.tolist() == [0.5, 0.4]
    agnostic = how.with_thresholds(class_agnostic=True)(outputs)[0]
    assert (agnostic.scores.tolist(), agnostic.classes.tolist()) == ([0.5, 0.2], [0, 0])


def test_a_sample_without_boxes() -> None:
    outputs = {"s": np.full((1, 2, 3, 3), -50.0), "d": np.ones((1, 4, 3, 3))}
    (found,) = Postprocessing(("s",), ("d",), (8,))(outputs)
    assert len(found) == 0 and found.xyxy.shape == (0, 4)


def test_travels_as_json() -> None:
    how = Postprocessing(("a", "b"), ("c", "d"), (8, 16), nms_iou=0.5, class_agnostic=True)
    assert Postprocessing.from_json(how.to_json()) == how


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"strides": ()}, "one of each per level"),
        ({"activation": "softmax"}, "sigmoid, none"),
        ({"unit": "metre"}, "pixel, stride"),
        ({"reach": "relu"}, "none, exp, softplus"),
        ({"nms_iou": 1.5}, "nms_iou 1.5"),
        ({"score_threshold": -0.1}, "score_threshold -0.1"),
        ({"most": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Postprocessing(**{"scores": ("s",), "distances": ("d",), "strides": (8,), **fields})  # type: ignore[arg-type]


def test_maps_that_are_none_are_named() -> None:
    how = Postprocessing(("s",), ("d",), (8,))
    with pytest.raises(ValueError, match="no output 'd'"):
        how({"s": np.zeros((1, 2, 3, 3))})
    with pytest.raises(ValueError, match="of one level"):
        how({"s": np.zeros((1, 2, 3, 3)), "d": np.zeros((1, 4, 3, 4))})


def test_sigmoid_at_the_ends() -> None:
    assert sigmoid(np.asarray([-1000.0, 0.0, 1000.0])).tolist() == [0.0, 0.5, 1.0]
