"""What a deployable network is: its factory, its input and its preprocessing.

Packages offer networks through the entry-point group ``csa_deploy.models``; each entry point resolves to a
:class:`NetworkEntry`. This module imports nothing heavy, so that listing networks does not load torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

ENTRY_POINT_GROUP = "csa_deploy.models"

ColorMode = Literal["RGB", "L"]
Interpolation = Literal["nearest", "bilinear", "bicubic"]


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input tensor (N, C, H, W), float32.

    The image is decoded to ``mode``, resized by one factor for both axes so that it just covers ``size / crop``,
    cropped at the centre to ``size``, scaled to 0..1, then normalised per channel: ``(value - mean) / std``.

    Attributes:
        size: (height, width) in pixels of the network's input.
        mode: ``"RGB"`` (3 channels) or ``"L"`` (1 channel, grey).
        mean: per-channel mean, on the 0..1 scale.
        std: per-channel standard deviation, on the 0..1 scale.
        interpolation: filter of the resize (Pillow's filters, antialiased).
        crop: share of the resized image that the centre crop keeps, in (0, 1].
        classes: class names in output order; empty when the network has none.
    """

    size: tuple[int, int]
    mode: ColorMode = "RGB"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: Interpolation = "bicubic"
    crop: float = 0.875
    classes: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """Channels of the input tensor: 3 for RGB, 1 for L."""
        return 3 if self.mode == "RGB" else 1

    def with_size(self, size: tuple[int, int]) -> Preprocessing:
        """The same preprocessing for another (height, width)."""
        return replace(self, size=size)

    def to_json(self) -> dict[str, Any]:
        """JSON form; travels in the ONNX metadata as ``csa_deploy.preprocessing``."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Preprocessing:
        """Inverse of :meth:`to_json`; raises KeyError or TypeError on foreign data."""
        return cls(
            size=(int(data["size"][0]), int(data["size"][1])),
            mode=data["mode"],
            mean=tuple(float(v) for v in data["mean"]),
            std=tuple(float(v) for v in data["std"]),
            interpolation=data["interpolation"],
            crop=float(data["crop"]),
            classes=tuple(data["classes"]),
        )


@dataclass(frozen=True)
class NetworkEntry:
    """One deployable network.

    Attributes:
        name: registry name, as typed on the command line.
        summary: one line for ``csa-deploy models``.
        factory: ``factory(input_size=(H, W))`` returns the module in eval mode, with its weights if it ships any.
            It imports torch itself and raises UsageError when the network cannot mean that input size.
        preprocessing: default preprocessing; its ``size`` is the default input size.
        weights: where the weights come from, in words ("random initialisation (seed 0)", "trained, ...").
        pretrained: whether the weights are trained (then accuracy against labels means something).
        dataset: name of the data set that belongs to the network (``"digits"``, ``"photos"``).
    """

    name: str
    summary: str
    factory: Callable[..., nn.Module]
    preprocessing: Preprocessing
    weights: str
    pretrained: bool = False
    dataset: str = "photos"
