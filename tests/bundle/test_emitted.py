"""Thresholds in the bundle, and the parameters of Autoware's node."""

import json
from pathlib import Path

import pytest
import yaml

from csa_deploy.boxes import Postprocessing
from csa_deploy.bundle.archive import Archive
from csa_deploy.bundle.make import make_bundle
from csa_deploy.errors import UsageError
from csa_deploy.workspace import Workspace

HOW = Postprocessing(("s",), ("d",), (8,), score_threshold=0.25, nms_iou=0.5).to_json()


def test_thresholds_and_autowares_parameters_travel(workspace: Workspace, feeds: list, tmp_path: Path) -> None:
    given = {"decoding": HOW, "classes": ("car", "truck"), "emit": ["autoware"]}
    made = make_bundle(workspace, "fp16", tmp_path / "b.tar", feeds, **given)  # type: ignore[arg-type]
    with Archive(made.path) as archive:
        index = json.loads(archive.read("bundle.json"))
        found = yaml.safe_load(archive.read("autoware/detector.param.yaml"))["/**"]["ros__parameters"]
        assert archive.read("autoware/label.txt") == b"car\ntruck\n"
        names = set(archive.names)
    assert index["postprocessing"]["score_threshold"] == found["score_threshold"] == 0.25
    assert found["nms_threshold"] == 0.5 and found["precision"] == "fp16"
    assert found["model_path"].removeprefix("../") in names


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"emit": ["autowear"]}, "did you mean 'autoware'"),
        ({"emit": ["autoware"], "classes": ("car",)}, "score threshold"),
        ({"emit": ["autoware"], "decoding": HOW}, "names of the classes"),
    ],
)
def test_what_is_missing_is_said(workspace: Workspace, feeds: list, tmp_path: Path, given: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_bundle(workspace, "fp16", tmp_path / "b.tar", feeds, **given)
