"""Resize and Upsample."""

from __future__ import annotations

from typing import Any

import numpy as np

from csa_deploy.restricted.graph import Value
from csa_deploy.restricted.mapping.recorder import Recorder, UnmappableError, importer
from csa_deploy.restricted.rounding import resize_sizes

_MODES = {"nearest": "NEAREST", "linear": "LINEAR", "bilinear": "LINEAR", "cubic": "CUBIC"}
_COORDINATES = {
    "half_pixel": "HALF_PIXEL",
    "pytorch_half_pixel": "HALF_PIXEL",
    "tf_half_pixel_for_nn": "HALF_PIXEL",
    "asymmetric": "ASYMMETRIC",
    "align_corners": "ALIGN_CORNERS",
}


@importer("Resize", "Upsample")
def _resize(net: Recorder) -> None:
    source = net.tensor(0)
    mode = _MODES.get(net.attr("mode", "nearest"))
    coordinate = _COORDINATES.get(_coordinate(net))
    if mode is None or coordinate is None:
        raise UnmappableError("not-imported", f"mode {net.attr('mode')}, coordinates {_coordinate(net)}")
    if net.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnmappableError("not-imported", f"aspect-ratio policy {net.attr('keep_aspect_ratio_policy')}")
    if net.attr("axes") is not None and net.version < (10,):
        raise UnmappableError("not-imported", "axes of a Resize")
    if net.attr("antialias", 0):
        net.refuse_from_10("antialiasing")
    scales, sizes = _scales(net), _sizes(net)
    _require_scales_of_tf(net, scales)
    facts: dict[str, Any] = {
        "mode": mode,
        "coordinate": coordinate,
        "selector": "UPPER" if _coordinate(net) == "pytorch_half_pixel" else "FORMULA",
        "nearest_mode": net.attr("nearest_mode", "round_prefer_floor").upper(),
        "antialias": bool(net.attr("antialias", 0)),
        "exclude_outside": bool(net.attr("exclude_outside", 0)),
        "cubic_coeff": net.attr("cubic_coeff_a", -0.75),
        **_size_facts(net, source, scales, sizes),
    }
    more = [value for value in (scales, sizes) if value is not None and not value.weights]
    if net.version < (10,) and sizes is not None and sizes.const:
        more.append(net.as_tensor(sizes))
    net.add("RESIZE", [source, *more], net.out, **facts)


def _require_scales_of_tf(net: Recorder, scales: Value | None) -> None:
    """The coordinates of TensorFlow's half pixels are taken with scales alone, and one rounding (validator)."""
    if _coordinate(net) != "tf_half_pixel_for_nn":
        return
    if scales is None:
        net.refuse_from_10("tf_half_pixel_for_nn by sizes")
    rounding = net.attr("nearest_mode", "round_prefer_floor")
    if net.attr("mode", "nearest") == "nearest" and rounding != "round_prefer_floor":
        net.refuse_from_10(f"tf_half_pixel_for_nn with {rounding}")


def _coordinate(net: Recorder) -> str:
    default = "half_pixel" if net.opset >= 11 else "asymmetric"
    return str(net.attr("coordinate_transformation_mode", default))


def _scales(net: Recorder) -> Value | None:
    """The scales: second input up to opset 10, third since; an empty tensor is as good as none."""
    if net.node.op == "Upsample" and (found := net.attr("scales")) is not None:
        return Value("", "float32", (len(found),), True, np.array(found, np.float32))
    value = net.node.input(1 if net.opset < 11 else 2)
    return None if value is None or value.elements == 0 else value


def _sizes(net: Recorder) -> Value | None:
    value = net.node.input(3)
    return None if value is None or value.elements == 0 else value


def _size_facts(net: Recorder, source: Value, scales: Value | None, sizes: Value | None) -> dict[str, Any]:
    if scales is None:
        known = sizes is not None and sizes.data is not None
        return {"by": "SIZES" if known else "DYNAMIC"}
    if scales.data is None or scales.computed:  # the parser wants weights here, not a tensor that happens to be known
        return {"by": "DYNAMIC"}
    values = [float(value) for value in scales.data.reshape(-1)]
    facts: dict[str, Any] = {
        "by": "SCALES",
        "scales": values,
        "scales_whole": [value == round(value) if np.isfinite(value) else False for value in values],
        "non_finite": not np.isfinite(values).all() or min(values, default=1) <= 0,
    }
    if source.shape is None or None in source.shape or net.out.shape is None:
        return facts
    if len(values) not in (len(source.shape), len(net.attr("axes", ()))):
        raise UnmappableError("invalid", f"{len(values)} scales for {len(source.shape)} dimensions")
    dims = [dim for dim in source.shape if dim is not None]
    found = resize_sizes(dims, values, net.out.shape)
    if found is not None:
        pairs = zip(found.float32, net.out.shape, strict=True)
        if any(size is not None and abs(size - computed) > 1 for computed, size in pairs):  # no rounding, a lie
            raise UnmappableError("shape-conflict", f"'{net.out.name}' is {list(net.out.shape)}, not {found.float32}")
        facts |= {
            "sizes_agree": found.agree(net.out.shape),
            "size_float64": found.float64,
            "size_float32": found.float32,
            "size_mixed": found.mixed,
        }
    return facts
