"""Segmentation and detection on CSA backbones: shapes, meaning of the outputs, and where they may run."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from csa_models import registry
from csa_models.dense import PRIOR, CSADetection, Pyramid

import csa_deploy
from csa_deploy.boxes import Postprocessing
from csa_deploy.errors import UsageError
from csa_deploy.graph.repair import REPAIRS
from csa_deploy.network import NetworkEntry

SMALL = [registry.csa_segmentation, registry.csa_detection]
FULL = {
    f"{backbone}_{task}": (backbone, task)
    for backbone in ("convselfattn", "convselfattn_pad1")
    for task in ("segmentation", "detection")
}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("size", [(128, 128), (64, 192), (120, 136)])
def test_logits_have_the_size_of_the_image(size: tuple[int, int], batch: int) -> None:
    network = registry.csa_segmentation.factory(input_size=size)
    assert network(torch.randn(batch, 3, *size)).shape == (batch, 11, *size)


def test_detection_gives_two_maps_per_level() -> None:
    shapes = {name: tuple(t.shape) for name, t in registry.csa_detection.factory()(torch.randn(2, 3, 128, 128)).items()}
    assert shapes == {
        "logits_8": (2, 10, 16, 16),
        "distances_8": (2, 4, 16, 16),
        "logits_16": (2, 10, 8, 8),
        "distances_16": (2, 4, 8, 8),
    }


def test_an_untrained_detector_finds_boxes_of_two_strides_with_little_confidence() -> None:
    network = registry.csa_detection.factory(pretrained=False)
    assert isinstance(network, CSADetection)
    network.train()  # as a training starts: BatchNorm knows no statistics yet
    outputs = {n: t.detach().numpy() for n, t in network(torch.randn(1, 3, 128, 128)).items()}
    for stride in (8, 16):
        outputs[f"distances_{stride}"] = outputs[f"distances_{stride}"] * 0 + 1
    (found,) = network.postprocessing.with_thresholds(score_threshold=0.0, nms_iou=1.0)(outputs)
    assert {tuple(sides) for sides in (found.xyxy[:, 2:] - found.xyxy[:, :2]).tolist()} <= {(16.0, 16.0), (32.0, 32.0)}
    assert abs(np.median(found.scores) - PRIOR) < PRIOR
    assert Postprocessing.from_json(network.postprocessing.to_json()) == network.postprocessing


def test_a_pyramid_hands_the_coarse_down_to_the_fine() -> None:
    pyramid = Pyramid((4, 6, 8), (5, 7, 9)).eval()
    sizes = [(16, 20), (8, 10), (4, 5)]
    maps = [torch.randn(1, c, *size, requires_grad=True) for c, size in zip((4, 6, 8), sizes, strict=True)]
    found = pyramid(maps)
    assert [tuple(m.shape) for m in found] == [(1, 5, 16, 20), (1, 7, 8, 10), (1, 9, 4, 5)]
    found[0].sum().backward()
    assert all(m.grad is not None and m.grad.abs().sum() > 0 for m in maps)
    gradients = torch.autograd.grad(pyramid(maps)[2].sum(), maps, allow_unused=True)
    assert [gradient is None for gradient in gradients] == [True, True, False]


@pytest.mark.parametrize("entry", SMALL, ids=lambda entry: entry.name)
def test_too_small_an_input_is_refused(entry: NetworkEntry) -> None:
    with pytest.raises(UsageError, match="smallest side is 16"):
        entry.factory(input_size=(128, 8))


@pytest.mark.parametrize("entry", SMALL, ids=lambda entry: entry.name)
def test_small_networks_stay_small(entry: NetworkEntry) -> None:
    assert sum(p.numel() for p in entry.factory().parameters()) * 4 < 3e6
    assert entry.dataset == "scenes" and entry.name == f"csa_{entry.task}"


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_a_backbone_at_full_size_is_that_of_the_classifier(name: str) -> None:
    backbone, task = FULL[name]
    entry, classifier = getattr(registry, name), getattr(registry, backbone)
    assert (entry.name, entry.task, entry.preprocessing.size) == (name, task, (512, 1024))
    ours, theirs = entry.factory(), classifier.factory()
    shapes = {n: tuple(t.shape) for n, t in ours.backbone.state_dict().items()}
    whole = {n: tuple(t.shape) for n, t in theirs.state_dict().items()}
    assert shapes == {n: s for n, s in whole.items() if n.split(".")[0] not in ("norm", "head")}


@pytest.mark.slow
@pytest.mark.parametrize("entry", SMALL, ids=lambda entry: entry.name)
def test_scopes_allow_them_and_dla_after_exact_repairs(entry: NetworkEntry) -> None:
    exported = csa_deploy.export(entry.name)
    before = csa_deploy.check(exported, scopes=["drive-os-6", "drive-os-7", "dla-orin"])
    assert {s.scope: s.verdict for s in before.scopes} == {
        "drive-os-6": "allowed",
        "drive-os-7": "allowed",
        "dla-orin": "denied",
    }
    repaired = csa_deploy.repair(exported, ["dla-orin"])
    assert {step.rule for step in repaired.steps if step.rule in REPAIRS} == {
        "resize_down_to_conv"
    } and not repaired.left
    after = csa_deploy.check(repaired, scopes=["drive-os-6", "drive-os-7", "dla-orin"])
    assert {s.verdict for s in after.scopes} == {"allowed"}
    dla = next(s for s in after.scopes if s.scope == "dla-orin")
    assert dla.placement is not None and not dla.placement.fallbacks


def test_weights_are_those_of_the_cards() -> None:
    """See tests/train/test_scenes.py for what they reach."""
    for entry in SMALL:
        card = (registry.WEIGHTS / f"{entry.name}.md").read_text()
        weights = registry.WEIGHTS / f"{entry.name}.safetensors"
        assert hashlib.sha256(weights.read_bytes()).hexdigest() in card
        assert weights.stat().st_size < 3e6
