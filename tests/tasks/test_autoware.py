import pytest
import yaml

from csa_deploy.errors import UsageError
from csa_deploy.tasks.autoware import AUTOWARE_LABELS, PARAMETERS, autoware_files

# Types of what the node declares without a default; a wrong type stops it at its start.
DECLARED = {
    "model_path": str,
    "precision": str,
    "score_threshold": float,
    "nms_threshold": float,
    "calibration_algorithm": str,
    "dla_core_id": int,
    "quantize_first_layer": bool,
    "quantize_last_layer": bool,
    "profile_per_layer": bool,
    "clip_value": float,
    "calibration_image_list_path": str,
    "gpu_id": int,
    "label_path": str,
    "is_roi_overlap_segmentation": bool,
    "is_publish_color_mask": bool,
    "overlap_roi_score_threshold": float,
}


def test_every_declared_parameter_is_there_with_its_type() -> None:
    files = autoware_files("../graph/a.onnx", "int8", ("car", "no"), score_threshold=0, nms_threshold=1, dla_core=1)
    found = yaml.safe_load(files[PARAMETERS])["/**"]["ros__parameters"]
    assert {name: type(found[name]) for name in DECLARED} == DECLARED
    assert set(found) == {*DECLARED, "roi_overlay_segmentation_label"}
    assert (found["model_path"], found["precision"], found["dla_core_id"]) == ("../graph/a.onnx", "int8", 1)
    assert (found["score_threshold"], found["nms_threshold"]) == (0.0, 1.0)
    assert files[AUTOWARE_LABELS].decode().splitlines() == ["car", "no"]


@pytest.mark.parametrize("classes", [(), ("car", ""), ("a\nb",), (" car",)])
def test_classes_that_make_no_label_file_are_refused(classes: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="label file"):
        autoware_files("a.onnx", "fp16", classes, score_threshold=0.3, nms_threshold=0.5)
