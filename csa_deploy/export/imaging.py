"""How an image becomes the input of an ONNX file: what the file states, what the user says, else what is assumed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import onnx

from csa_deploy.errors import UsageError
from csa_deploy.export.metadata import read_preprocessing
from csa_deploy.network import Preprocessing
from csa_deploy.options import IMAGE_INPUT

if TYPE_CHECKING:
    from csa_deploy.config import Config

_MODES: dict[str, Literal["RGB", "BGR", "L"]] = {"rgb": "RGB", "bgr": "BGR", "grey": "L"}
_NORMALISATION = ("mean", "std", "scale")
_STATE_IT = "where that is wrong, so is every accuracy; state it by --mean, --std, --scale, --channels, --crop"


def preprocessing_of(model: onnx.ModelProto, config: Config) -> tuple[Preprocessing | None, str]:
    """The preprocessing of a graph of static shape, and a line about where it comes from.

    Raises:
        UsageError: settings for images, and the network takes no image of that kind.
    """
    given = {key: value for key in IMAGE_INPUT if (value := getattr(config, key)) is not None}
    stated = read_preprocessing(model)
    shape = _image_shape(model)
    if shape is None:
        if given:
            raise UsageError(
                f"--{next(iter(given))}: the network does not take one image of 1 or 3 channels as its only input",
                fix="drop the settings of images and give the data as .npz, one array per input",
            )
        return stated, "" if stated else "the network takes no image"
    base = stated if stated is not None else _assumed(model, shape, given)
    made = _with(base, shape, given)
    if made.shape != shape[1:]:
        raise UsageError(
            f"the network takes {list(shape)}, which is no image in {made.mode} and {made.layout}",
            fix="give --channels and --layout that fit this shape",
        )
    if given:
        return made, f"preprocessing as given: {made}"
    return made, "" if stated is not None else f"the file states no preprocessing; assumed {made}: {_STATE_IT}"


def _image_shape(model: onnx.ModelProto) -> tuple[int, ...] | None:
    """Shape of the only input where it is an image."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    shapes = [tuple(d.dim_value for d in value.type.tensor_type.shape.dim) for value in inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or not {shapes[0][1], shapes[0][3]} & {1, 3}:
        return None
    return shapes[0]


def _assumed(model: onnx.ModelProto, shape: tuple[int, ...], given: dict[str, Any]) -> Preprocessing:
    """ImageNet's: of classifiers with its crop, of others with the whole width or height.

    Where one of mean, std and scale is given, the user describes the normalisation, and the others are neutral.
    """
    nhwc = given.get("layout", "nchw" if shape[1] in (1, 3) else "nhwc") == "nhwc"
    grey = shape[3 if nhwc else 1] == 1
    classifier = all(len(value.type.tensor_type.shape.dim) == 2 for value in model.graph.output)
    neutral = grey or any(name in given for name in _NORMALISATION)
    plain = Preprocessing(
        (shape[1], shape[2]) if nhwc else (shape[2], shape[3]),
        crop=0.875 if classifier else 1.0,
        layout="NHWC" if nhwc else "NCHW",
    )
    return replace(plain, mode="L" if grey else "RGB", mean=(0.0,), std=(1.0,)) if neutral else plain


def _with(base: Preprocessing, shape: tuple[int, ...], given: dict[str, Any]) -> Preprocessing:
    """The base with what is given, and with the size of the graph."""
    changes: dict[str, Any] = {key: given[key] for key in given if key not in ("channels", "layout")}
    if "channels" in given:
        changes["mode"] = _MODES[given["channels"]]
        if (changes["mode"] == "L") != (base.mode == "L"):  # numbers for other channels
            changes = {"mean": (0.0,), "std": (1.0,), "fill": (0,), **changes}
        elif changes["mode"] != base.mode:  # a colour keeps its numbers
            changes = {"mean": base.mean[::-1], "std": base.std[::-1], "fill": base.fill[::-1], **changes}
    layout = given["layout"].upper() if "layout" in given else base.layout
    changes["layout"] = layout
    changes["size"] = (shape[1], shape[2]) if layout == "NHWC" else (shape[2], shape[3])
    try:
        return replace(base, **changes)
    except ValueError as error:
        raise UsageError(f"the preprocessing does not fit the network: {error}", fix="give all of it") from None
