"""What a deployable network is: its factory, its input and its preprocessing.

Packages offer networks through the entry-point group ``csa_deploy.models``; each entry point resolves to a
:class:`NetworkEntry`. This module imports nothing heavy, so that listing networks does not load torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from torch import nn

ENTRY_POINT_GROUP = "csa_deploy.models"

ColorMode = Literal["RGB", "BGR", "L"]
Layout = Literal["NCHW", "NHWC"]
Interpolation = Literal["nearest", "bilinear", "bicubic"]
Fit = Literal["crop", "letterbox", "pad", "resize"]
Anchor = Literal["center", "corner"]
Sample = Literal["batched", "whole"]
"""What one sample is: ``batched``, a row of axis 0, which all inputs and outputs share; ``whole``, all that one
inference takes and gives."""
Task = Literal["classification", "segmentation", "detection"]


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input tensor, float32.

    The image is decoded, brought to ``size`` as ``fit`` says, and normalised per channel:
    ``(pixel * scale - mean) / std`` with pixels from 0 to 255.

    - ``crop``: resized by one factor for both axes so that it just covers ``size / crop``, and cropped at the centre.
    - ``letterbox``: resized by one factor so that all of it just fits, and what remains of ``size`` filled.
    - ``pad``: not resized; what remains is filled, and a larger image refused.
    - ``resize``: each axis by its own factor.

    :func:`csa_deploy.data.geometry.geometry_of` takes boxes and masks there and back.

    Attributes:
        size: (height, width) in pixels of the network's input.
        mode: ``"RGB"``, ``"BGR"`` (3 channels) or ``"L"`` (1 channel, grey).
        mean: per channel in the order of ``mode``, or one for all; on the scale of ``pixel * scale``.
        std: likewise; no zero.
        interpolation: ``"nearest"``, ``"bilinear"`` or ``"bicubic"``: Pillow's filters, antialiased.
        crop: share of the resized image that the centre crop keeps, in (0, 1].
        classes: class names in output order; empty when the network has none.
        scale: what pixels are multiplied by; None for a division by 255, which gives 0..1.
        layout: axes of the input: ``"NCHW"`` or ``"NHWC"``.
        fit: how the image gets its size, see above.
        fill: pixel from 0 to 255 per channel in the order of ``mode``, or one for all, where ``letterbox`` and ``pad``
            leave room.
        anchor: where they put the image: ``"center"``, or ``"corner"`` (top left).

    Raises:
        ValueError: a field has another value; the message names it and what is possible.
    """

    size: tuple[int, int]
    mode: ColorMode = "RGB"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: Interpolation = "bicubic"
    crop: float = 0.875
    classes: tuple[str, ...] = ()
    scale: float | None = None
    layout: Layout = "NCHW"
    fit: Fit = "crop"
    fill: tuple[int, ...] = (0,)
    anchor: Anchor = "center"

    def __post_init__(self) -> None:
        _one_of("mode", self.mode, get_args(ColorMode))
        _one_of("interpolation", self.interpolation, get_args(Interpolation))
        _one_of("layout", self.layout, get_args(Layout))
        _one_of("fit", self.fit, get_args(Fit))
        _one_of("anchor", self.anchor, get_args(Anchor))
        if len(self.fill) not in (1, self.channels) or not all(v in range(256) for v in self.fill):
            raise ValueError(f"fill {self.fill} is not one pixel from 0 to 255, or one for each of {self.channels}")
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"size {self.size} is not (height, width) in pixels")
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop {self.crop} is not above 0 and at most 1")
        if self.scale is not None and not 0 < self.scale < math.inf:
            raise ValueError(f"scale {self.scale} is not a number above 0")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels) or not all(map(math.isfinite, values)):
                raise ValueError(f"{name} {values} is not one number, or one for each of {self.channels} channels")
        if 0.0 in self.std:
            raise ValueError(f"std {self.std} has a zero")
        white = 255 * (1 / 255 if self.scale is None else self.scale)
        if max(self.mean) > 2 * white:
            raise ValueError(
                f"mean {self.mean} is far above {white:g}, which pixel * scale is at most; is scale 1 missing, for "
                "a mean of pixels from 0 to 255?"
            )

    @property
    def channels(self) -> int:
        """Channels of the input tensor: 3 for RGB and BGR, 1 for L."""
        return 1 if self.mode == "L" else 3

    @property
    def decoded(self) -> Literal["RGB", "L"]:
        """Pillow's mode of the images before normalisation; BGR is RGB whose channels are turned round then."""
        return "L" if self.mode == "L" else "RGB"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one sample: (C, H, W), or (H, W, C) in the layout NHWC."""
        height, width = self.size
        return (self.channels, height, width) if self.layout == "NCHW" else (height, width, self.channels)

    def with_size(self, size: tuple[int, int]) -> Preprocessing:
        """The same preprocessing for another (height, width)."""
        return replace(self, size=size)

    def to_json(self) -> dict[str, Any]:
        """JSON form; travels in the ONNX metadata as ``csa_deploy.preprocessing``."""
        data = asdict(self)
        if self.fit == "crop":  # as it was before there was another
            for name in ("fit", "fill", "anchor"):
                del data[name]
        return data

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
            scale=None if data.get("scale") is None else float(data["scale"]),  # files of csa-deploy 0.1 have none
            layout=data.get("layout", "NCHW"),
            fit=data.get("fit", "crop"),
            fill=tuple(int(v) for v in data.get("fill", (0,))),
            anchor=data.get("anchor", "center"),
        )


def _one_of(field: str, value: Any, possible: tuple[str, ...]) -> None:
    if value not in possible:
        raise ValueError(f"{field} '{value}' is not one of {', '.join(possible)}")


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
        task: what its outputs are; None: as the data say.
    """

    name: str
    summary: str
    factory: Callable[..., nn.Module]
    preprocessing: Preprocessing
    weights: str
    pretrained: bool = False
    dataset: str = "photos"
    task: Task | None = None
