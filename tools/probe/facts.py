"""Read the layers of a TensorRT network back as facts, in the words of the rule packs.

Runs in the validator's process: standard library and TensorRT only. Facts keep the meaning that
``vocabulary.FACTS`` gives them; ranks follow from the shapes and are added by :func:`with_ranks`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tools.probe.networks import DTYPES

Facts = dict[str, Any]

_NAMES = {number: name for name, number in DTYPES.items()}
_RENAMED = {"KV_CACHE_UPDATE": "KVCACHE_UPDATE"}


def _word(value: Any) -> str:
    """Name of an enum's value."""
    return str(value).rpartition(".")[2]


def _axes(mask: int) -> list[int]:
    return [axis for axis in range(8) if mask >> axis & 1]


def _slice(layer: Any) -> Facts:
    return {"mode": _word(layer.mode), "stride": _dims(layer.stride)}


def _convolution(layer: Any) -> Facts:
    kernel, dilation = list(layer.kernel_size_nd), list(layer.dilation_nd)
    before, after = list(layer.pre_padding), list(layer.post_padding)
    sizes = list(layer.get_input(0).shape)[-len(kernel) :]
    return {
        "spatial_rank": len(kernel),
        "kernel": kernel,
        "stride": list(layer.stride_nd),
        "dilation": dilation,
        "extent": [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)],
        "padded": [sum(sides) for sides in zip(sizes, before, after, strict=True)],
        "pre_padding": before,
        "post_padding": after,
        "groups": layer.num_groups,
        "output_maps": layer.num_output_maps,
    }


def _pooling(layer: Any) -> Facts:
    kernel = list(layer.window_size_nd)
    return {
        "kind": _word(layer.type),
        "spatial_rank": len(kernel),
        "kernel": kernel,
        "stride": list(layer.stride_nd),
        "pre_padding": list(layer.pre_padding),
        "post_padding": list(layer.post_padding),
        "count_include_pad": not layer.average_count_excludes_padding,
    }


def _scale(layer: Any) -> Facts:
    power = layer.power
    if hasattr(power, "tolist"):
        return {"power": any(value != 1 for value in power.tolist())}
    # Weights of a dtype that numpy lacks come as they are, without their values.
    return {"power": None if power.size else False}


def _resize(layer: Any) -> Facts:
    return {"mode": _word(layer.resize_mode), "coordinate": _word(layer.coordinate_transformation)}


def _grid_sample(layer: Any) -> Facts:
    return {"mode": _word(layer.interpolation_mode)}


_READERS: dict[str, tuple[str, Callable[[Any], Facts]]] = {
    "ACTIVATION": ("IActivationLayer", lambda layer: {"kind": _word(layer.type)}),
    "CONVOLUTION": ("IConvolutionLayer", _convolution),
    "DECONVOLUTION": ("IDeconvolutionLayer", _convolution),
    "POOLING": ("IPoolingLayer", _pooling),
    "SCALE": ("IScaleLayer", _scale),
    "SOFTMAX": ("ISoftMaxLayer", lambda layer: {"axes": _axes(layer.axes)}),
    "CONCATENATION": ("IConcatenationLayer", lambda layer: {"axis": layer.axis}),
    "ELEMENTWISE": ("IElementWiseLayer", lambda layer: {"kind": _word(layer.op)}),
    "UNARY": ("IUnaryLayer", lambda layer: {"kind": _word(layer.op)}),
    "REDUCE": (
        "IReduceLayer",
        lambda layer: {"kind": _word(layer.op), "axes": _axes(layer.axes), "keep_dims": layer.keep_dims},
    ),
    "TOPK": ("ITopKLayer", lambda layer: {"kind": _word(layer.op), "k": layer.k, "axes": _axes(layer.axes)}),
    "GATHER": ("IGatherLayer", lambda layer: {"mode": _word(layer.mode), "axis": layer.axis}),
    "SCATTER": ("IScatterLayer", lambda layer: {"mode": _word(layer.mode), "axis": layer.axis}),
    "CAST": ("ICastLayer", lambda layer: {"to": _NAMES.get(_word(layer.to_type))}),
    "SLICE": ("ISliceLayer", _slice),
    "RESIZE": ("IResizeLayer", _resize),
    "FILL": ("IFillLayer", lambda layer: {"kind": _word(layer.operation)}),
    "QUANTIZE": ("IQuantizeLayer", lambda layer: {"axis": layer.axis}),
    "DEQUANTIZE": ("IDequantizeLayer", lambda layer: {"axis": layer.axis}),
    "ONE_HOT": ("IOneHotLayer", lambda layer: {"axis": layer.axis}),
    "NORMALIZATION": ("INormalizationLayer", lambda layer: {"axes": _axes(layer.axes)}),
    "GRID_SAMPLE": ("IGridSampleLayer", _grid_sample),
}


def network_facts(network: Any) -> Facts:
    """Return the facts of the pseudo layer NETWORK."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    kinds = {_word(network.get_layer(i).type) for i in range(network.num_layers)}
    return {
        "layer": "NETWORK",
        "input_dtype": [_dtype(tensor) for tensor in inputs],
        "output_dtype": [_dtype(tensor) for tensor in outputs],
        "dynamic_inputs": [tensor.name for tensor in inputs if -1 in tensor.shape],
        "layer_types": sorted(_RENAMED.get(kind, kind) for kind in kinds),
    }


def layer_facts(trt: Any, layer: Any, constants: set[str]) -> Facts:
    """Return the facts of one layer; ``constants`` holds the names of the tensors that Constant layers make."""
    kind = _word(layer.type)
    inputs = [tensor for i in range(layer.num_inputs) if (tensor := layer.get_input(i)) is not None]
    outputs = [tensor for i in range(layer.num_outputs) if (tensor := layer.get_output(i)) is not None]
    facts: Facts = {
        "layer": _RENAMED.get(kind, kind),
        "in_dtype": [_dtype(tensor) for tensor in inputs],
        "out_dtype": [_dtype(tensor) for tensor in outputs],
        "in_shape": [_shape(tensor) for tensor in inputs],
        "out_shape": [_shape(tensor) for tensor in outputs],
        "in_const": [tensor.name in constants for tensor in inputs],
    }
    if kind == "CONSTANT":
        constants.update(tensor.name for tensor in outputs)
    if kind in _READERS:
        name, read = _READERS[kind]
        # The bindings return the base class; the concrete one shows the attributes (and, for activation and
        # pooling, hides the layer type behind the type of the operation).
        layer.__class__ = getattr(trt, name)
        facts.update(read(layer))
    return facts


def _dtype(tensor: Any) -> str | None:
    return None if tensor is None else _NAMES.get(_word(tensor.dtype), _word(tensor.dtype))


def _shape(tensor: Any) -> list[int | None] | None:
    dims = _dims(tensor.shape)
    return None if dims is None else [None if dim < 0 else dim for dim in dims]


def _dims(dims: Any) -> list[int] | None:
    try:
        return list(dims)
    except ValueError:  # a rank that is not known reads as a negative length
        return None


def with_ranks(facts: Facts) -> Facts:
    """Add what follows from the other facts: ranks, numbers of tensors, fixed shapes, finite constants (all ones)."""
    if "in_shape" not in facts:
        return facts
    shapes = [*facts["in_shape"], *facts["out_shape"]]
    ranks = {f"{side}_rank": [None if s is None else len(s) for s in facts[f"{side}_shape"]] for side in ("in", "out")}
    counts = {"inputs": len(facts["in_shape"]), "outputs": len(facts["out_shape"])}
    dynamic = any(shape is None or None in shape for shape in shapes)
    return {"op": "", **facts, **ranks, **counts, "dynamic": dynamic, "non_finite": False}
