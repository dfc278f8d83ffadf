"""The parameter file of Autoware's TensorRT detector node, and its label file.

The names are those that ``autoware_tensorrt_yolox`` declares (autowarefoundation/autoware_universe, read on 28 November
2026: ``perception/autoware_tensorrt_yolox/src/tensorrt_yolox_node.cpp`` at 04427eac and
``schema/ml_package_yolox.schema.json`` at 9e9727c7). All of those without a default in the node are written, so that
it starts with this file alone. The node builds its engine from the ONNX file and decodes YOLOX heads itself: that a
network's outputs are such heads is for whoever deploys it to see.
"""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from csa_deploy.errors import UsageError

PARAMETERS, AUTOWARE_LABELS = "detector.param.yaml", "label.txt"
_OVERLAID = ("UNKNOWN", "CAR", "TRUCK", "BUS", "MOTORCYCLE", "BICYCLE", "PEDESTRIAN", "ANIMAL", "HAZARD")
_WHAT = (
    "# Parameters of Autoware's autoware_tensorrt_yolox, which decodes YOLOX heads; paths are relative to this file.\n"
)


def autoware_files(
    model_path: str,
    precision: str,
    classes: Sequence[str],
    *,
    score_threshold: float,
    nms_threshold: float,
    dla_core: int = -1,
) -> dict[str, bytes]:
    """The files by name, :data:`PARAMETERS` and :data:`AUTOWARE_LABELS`.

    Args:
        model_path: of the ONNX file, as the node is to find it.
        precision: ``"fp32"``, ``"fp16"`` or ``"int8"``.
        classes: names in the order of the network's classes.
        score_threshold: boxes with a lower score are dropped.
        nms_threshold: overlap above which the weaker box is dropped.
        dla_core: -1 for the GPU.

    Raises:
        UsageError: no class names, or one that is no line of a label file.
    """
    if not classes:
        raise UsageError(
            "Autoware's label file needs the names of the classes", fix="state them in the network's preprocessing"
        )
    for name in classes:
        if name != name.strip() or not name or len(name.splitlines()) != 1:
            raise UsageError(f"the class name {name!r} cannot be a line of Autoware's label file", fix="rename it")
    parameters = {
        "model_path": model_path,
        "label_path": AUTOWARE_LABELS,
        "precision": precision,
        "score_threshold": float(score_threshold),
        "nms_threshold": float(nms_threshold),
        "dla_core_id": dla_core,
        "gpu_id": 0,
        "calibration_algorithm": "MinMax",
        "calibration_image_list_path": "",
        "quantize_first_layer": False,
        "quantize_last_layer": False,
        "clip_value": 0.0,
        "profile_per_layer": False,
        "is_roi_overlap_segmentation": False,
        "is_publish_color_mask": False,
        "overlap_roi_score_threshold": 0.3,
        "roi_overlay_segmentation_label": dict.fromkeys(_OVERLAID, False),
    }
    text = yaml.safe_dump({"/**": {"ros__parameters": parameters}}, sort_keys=False)
    return {PARAMETERS: (_WHAT + text).encode(), AUTOWARE_LABELS: ("\n".join(classes) + "\n").encode()}
