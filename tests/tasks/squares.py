"""A detector that is right by construction, and its pictures: coloured squares of 16 pixels around centres of cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, STRIDE, SQUARE = 64, 8, 16
DECODE = """
import numpy as np

def decode(outputs):
    boxes, scores = outputs["boxes"], outputs["scores"]
    cells, classes = np.nonzero(scores >= 0.1)
    return boxes[cells], scores[cells, classes], classes
"""


def detector(
    *, swapped: bool = False, stride: int = STRIDE, sigmoid: bool = True, form: str = "xyxy"
) -> onnx.ModelProto:
    """Images (1, 3, 64, 64) -> boxes (1, 64, 4) in pixels and scores (1, 64, 2); the keywords plant faults."""
    cells, weight = SIDE // STRIDE, np.zeros((2, 3, SQUARE, SQUARE), np.float32)
    for kind in range(2):
        weight[kind, 1 - kind if swapped else kind] = 40.0 / SQUARE**2
    rows, columns = np.divmod(np.arange(cells**2), cells)
    centres = (np.stack([columns, rows], axis=1) + 0.5) * stride
    half = np.full_like(centres, SQUARE / 2)
    sides = [centres - half, centres + half if form == "xyxy" else 2 * half]
    constants = {
        "weight": weight,
        "bias": np.full(2, -30.0, np.float32),  # three quarters of a square
        "flat": np.asarray([1, 2, cells**2], np.int64),
        "grid": np.concatenate(sides, axis=1)[None].astype(np.float32),
        "none": np.zeros((1, 3, 1, 1), np.float32),
        "line": np.asarray([1, 1, 1], np.int64),
        "axes": np.asarray([1, 2, 3], np.int64),
    }
    head = ["logits"] if sigmoid else ["scores"]
    nodes = [
        helper.make_node("Conv", ["x", "weight", "bias"], ["map"], "/head/conv", strides=[8, 8], pads=[4, 4, 4, 4]),
        helper.make_node("Reshape", ["map", "flat"], ["rows"], "/head/reshape"),
        helper.make_node("Transpose", ["rows"], head, "/head/transpose", perm=[0, 2, 1]),
        *([helper.make_node("Sigmoid", ["logits"], ["scores"], "/head/sigmoid")] if sigmoid else []),
        helper.make_node("Mul", ["x", "none"], ["nothing"], "/boxes/mul"),
        helper.make_node("ReduceSum", ["nothing", "axes"], ["zero"], "/boxes/sum", keepdims=0),
        helper.make_node("Reshape", ["zero", "line"], ["point"], "/boxes/reshape"),
        helper.make_node("Add", ["grid", "point"], ["boxes"], "/boxes/add"),
    ]
    values = {"x": [1, 3, SIDE, SIDE], "boxes": [1, cells**2, 4], "scores": [1, cells**2, 2]}
    infos = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in values.items()}
    graph = helper.make_graph(
        nodes,
        "squares",
        [infos["x"]],
        [infos["boxes"], infos["scores"]],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def pictures(folder: Path, count: int = 24, seed: int = 0) -> Path:
    """An .npz with inputs, and boxes with classes."""
    rng, images, boxes, kinds, owners = np.random.default_rng(seed), [], [], [], []
    for sample in range(count):
        image = rng.random((3, SIDE, SIDE)).astype(np.float32) * 0.2
        for place in rng.choice(4, rng.integers(1, 4), replace=False).tolist():
            row, column = 4 * STRIDE * np.asarray(divmod(place, 2)) + STRIDE // 2
            kind = int(rng.integers(0, 2))
            image[:, row : row + SQUARE, column : column + SQUARE] = 0.0
            image[kind, row : row + SQUARE, column : column + SQUARE] = rng.uniform(0.7, 0.85)  # logits of -2 to 4
            boxes.append([column, row, column + SQUARE, row + SQUARE])
            kinds.append(kind)
            owners.append(sample)
        images.append(image)
    path = folder / "squares.npz"
    arrays = {"x": np.stack(images), "boxes": np.asarray(boxes, np.float32)}
    np.savez(path, **arrays, box_labels=np.asarray(kinds), box_samples=np.asarray(owners))
    return path
