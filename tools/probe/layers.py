"""One function per statement of a probe: adds that layer to the network and sets its attributes.

Each takes the network in the making, its operands (tensors) and the attributes of the statement, and returns the
new layer (an input: the tensor), or None when TensorRT does not create it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tools.probe.networks import NetworkFromProbe


def _set(layer: Any, **attributes: Any) -> Any:
    for name, value in attributes.items():
        if value is not None:
            setattr(layer, name, value)
    return layer


def _mask(axes: list[int]) -> int:
    return sum(1 << axis for axis in axes)


def _input(b: NetworkFromProbe, _: list[Any], dtype: str, shape: list[int]) -> Any:
    return b.network.add_input(f"input_{len(b.tensors)}", b.dtype(dtype), shape)


def _constant(b: NetworkFromProbe, _: list[Any], dtype: str, shape: list[int], value: int = 1) -> Any:
    return b.network.add_constant(shape, b.weights(dtype, prod(shape), value))


def _integers(b: NetworkFromProbe, _: list[Any], values: list[int], dtype: str = "int64", scalar: bool = False) -> Any:
    b.integers(values, scalar=scalar, dtype=dtype)
    return b.network.get_layer(b.network.num_layers - 1)


def _activation(
    b: NetworkFromProbe, t: list[Any], kind: str, alpha: float | None = None, beta: float | None = None
) -> Any:
    layer = b.network.add_activation(t[0], getattr(b.trt.ActivationType, kind))
    return _set(layer, alpha=alpha, beta=beta)


def _convolution(
    b: NetworkFromProbe,
    t: list[Any],
    kernel: list[int],
    maps: int = 4,
    channels: int = 4,
    dtype: str = "float32",
    groups: int = 1,
    bias: bool = True,
    transposed: bool = False,
    mode: str | None = None,
    **attributes: Any,
) -> Any:
    count = 0 if len(t) > 1 else maps * channels // groups * prod(kernel)
    add = b.network.add_deconvolution_nd if transposed else b.network.add_convolution_nd
    layer = add(t[0], maps, kernel, b.weights(dtype, count), b.weights(dtype, maps if bias and len(t) == 1 else 0))
    for number, tensor in enumerate(t[1:], start=1):
        layer.set_input(number, tensor)
    return _padded(b, _set(layer, num_groups=groups, **attributes), mode)


def _pooling(
    b: NetworkFromProbe, t: list[Any], kind: str, window: list[int], mode: str | None = None, **attributes: Any
) -> Any:
    layer = b.network.add_pooling_nd(t[0], getattr(b.trt.PoolingType, kind), window)
    return _padded(b, _set(layer, **attributes), mode)


def _padded(b: NetworkFromProbe, layer: Any, mode: str | None) -> Any:
    """Let TensorRT choose the padding: it is then no attribute of the layer."""
    if mode:
        layer.padding_mode = getattr(b.trt.PaddingMode, mode)
    return layer


def _scale(
    b: NetworkFromProbe,
    t: list[Any],
    mode: str,
    dtype: str = "float32",
    channels: int = 4,
    parts: str = "hsp",
    axis: int = 1,
    power: int = 1,
) -> Any:
    count = {"UNIFORM": 1, "CHANNEL": channels, "ELEMENTWISE": prod(t[0].shape[1:])}[mode]
    shift, scale, exponent = (b.weights(dtype, count if part in parts else 0) for part in "hsp")
    if "p" in parts and power != 1:
        exponent = b.weights("float32", count, 0)
    return b.network.add_scale_nd(t[0], getattr(b.trt.ScaleMode, mode), shift, scale, exponent, axis)


def _shuffle(
    b: NetworkFromProbe,
    t: list[Any],
    first: list[int] | None = None,
    reshape: list[int] | None = None,
    second: list[int] | None = None,
) -> Any:
    layer = b.network.add_shuffle(t[0])
    _set(layer, first_transpose=first, reshape_dims=reshape, second_transpose=second)
    if len(t) > 1:
        layer.set_input(1, t[1])
    return layer


def _gather(b: NetworkFromProbe, t: list[Any], mode: str = "DEFAULT", axis: int = 0, batch_dims: int = 0) -> Any:
    layer = b.network.add_gather_v2(t[0], t[1], getattr(b.trt.GatherMode, mode))
    return _set(layer, axis=axis, num_elementwise_dims=batch_dims)


def _slice(
    b: NetworkFromProbe,
    t: list[Any],
    start: list[int],
    size: list[int],
    stride: list[int],
    mode: str | None = None,
    places: list[int] | None = None,
    axes: list[int] | None = None,
) -> Any:
    layer = b.network.add_slice(t[0], start, size, stride)
    if axes is not None:
        layer.axes = axes
    if mode:
        layer.mode = getattr(b.trt.SampleMode, mode)
    for place, tensor in zip(places or [], t[1:], strict=True):
        layer.set_input(place, tensor)
    return layer


def _resize(
    b: NetworkFromProbe,
    t: list[Any],
    mode: str = "NEAREST",
    shape: list[int] | None = None,
    scales: list[float] | None = None,
    coordinate: str | None = None,
    nearest: str | None = None,
    selector: str | None = None,
    **attributes: Any,
) -> Any:
    layer = b.network.add_resize(t[0])
    layer.resize_mode = getattr(b.trt.InterpolationMode, mode)
    _set(layer, shape=shape, scales=scales, **attributes)
    if len(t) > 1:
        layer.set_input(1, t[1])
    if coordinate:
        layer.coordinate_transformation = getattr(b.trt.ResizeCoordinateTransformation, coordinate)
    if nearest:
        layer.nearest_rounding = getattr(b.trt.ResizeRoundMode, nearest)
    if selector:
        layer.selector_for_single_pixel = getattr(b.trt.ResizeSelector, selector)
    return layer


def _fill(
    b: NetworkFromProbe,
    t: list[Any],
    kind: str,
    dtype: str,
    shape: list[int],
    alpha: float | None = None,
    beta: float | None = None,
    places: list[int] | None = None,
) -> Any:
    layer = b.network.add_fill(shape, getattr(b.trt.FillOperation, kind), b.dtype(dtype))
    _set(layer, alpha=alpha, beta=beta)
    for place, tensor in zip(places or [], t, strict=True):
        layer.set_input(place, tensor)
    return layer


def _quantize(
    b: NetworkFromProbe, t: list[Any], to: str, axis: int | None = None, block: list[int] | None = None
) -> Any:
    return _set(b.network.add_quantize(t[0], t[1], b.dtype(to)), axis=axis, block_shape=block)


def _dequantize(
    b: NetworkFromProbe, t: list[Any], to: str, axis: int | None = None, block: list[int] | None = None
) -> Any:
    return _set(b.network.add_dequantize(t[0], t[1], b.dtype(to)), axis=axis, block_shape=block)


def _scatter(b: NetworkFromProbe, t: list[Any], mode: str = "ELEMENT", axis: int = 0) -> Any:
    return _set(b.network.add_scatter(*t, getattr(b.trt.ScatterMode, mode)), axis=axis)


def _normalization(
    b: NetworkFromProbe, t: list[Any], axes: list[int], second: bool = False, groups: int | None = None
) -> Any:
    add = b.network.add_normalization_v2 if second else b.network.add_normalization
    return _set(add(*t, _mask(axes)), num_groups=groups)


def _grid_sample(
    b: NetworkFromProbe, t: list[Any], mode: str = "LINEAR", padding: str = "FILL", corners: bool = False
) -> Any:
    layer = b.network.add_grid_sample(*t)
    layer.interpolation_mode = getattr(b.trt.InterpolationMode, mode)
    layer.sample_mode = getattr(b.trt.SampleMode, padding)
    layer.align_corners = corners
    return layer


def _attention(b: NetworkFromProbe, t: list[Any], kind: str = "SOFTMAX", causal: bool = False) -> Any:
    return b.network.add_attention(*t[:3], getattr(b.trt.AttentionNormalizationOp, kind), causal)


def _conditional(b: NetworkFromProbe, t: list[Any]) -> Any:
    branch = b.network.add_if_conditional()
    branch.set_condition(t[0])
    entered = branch.add_input(t[1]).get_output(0)
    other = b.network.add_unary(entered, b.trt.UnaryOperation.NEG).get_output(0)
    return branch.add_output(b.network.add_unary(entered, b.trt.UnaryOperation.ABS).get_output(0), other)


def _iterator(b: NetworkFromProbe, t: list[Any], trips: int = 3) -> Any:
    loop = b.network.add_loop()
    loop.add_trip_limit(b.integers([trips], scalar=True, dtype="int32"), b.trt.TripLimit.COUNT)
    step = loop.add_iterator(t[0], 0).get_output(0)
    output = loop.add_loop_output(
        b.network.add_unary(step, b.trt.UnaryOperation.NEG).get_output(0), b.trt.LoopOutput.CONCATENATE, 0
    )
    output.set_input(1, b.integers([trips], scalar=True, dtype="int32"))
    return output


def _assertion(b: NetworkFromProbe, t: list[Any]) -> Any:
    return b.network.add_assertion(t[0], "probe")


LAYERS: dict[str, Callable[..., Any]] = {
    "input": _input,
    "constant": _constant,
    "integers": _integers,
    "activation": _activation,
    "convolution": _convolution,
    "pooling": _pooling,
    "scale": _scale,
    "softmax": lambda b, t, axes: _set(b.network.add_softmax(t[0]), axes=_mask(axes)),
    "concatenation": lambda b, t, axis=0: _set(b.network.add_concatenation(t), axis=axis),
    "elementwise": lambda b, t, kind: b.network.add_elementwise(*t, getattr(b.trt.ElementWiseOperation, kind)),
    "unary": lambda b, t, kind: b.network.add_unary(t[0], getattr(b.trt.UnaryOperation, kind)),
    "padding": lambda b, t, pre, post: b.network.add_padding_nd(t[0], pre, post),
    "shuffle": _shuffle,
    "reduce": lambda b, t, kind, axes, keep=True: b.network.add_reduce(
        t[0], getattr(b.trt.ReduceOperation, kind), _mask(axes), keep
    ),
    "topk": lambda b, t, kind, k, axes: b.network.add_topk(t[0], getattr(b.trt.TopKOperation, kind), k, _mask(axes)),
    "gather": _gather,
    "matrix_multiply": lambda b, t, left="NONE", right="NONE": b.network.add_matrix_multiply(
        t[0], getattr(b.trt.MatrixOperation, left), t[1], getattr(b.trt.MatrixOperation, right)
    ),
    "identity": lambda b, t: b.network.add_identity(t[0]),
    "cast": lambda b, t, to: b.network.add_cast(t[0], b.dtype(to)),
    "slice": _slice,
    "shape": lambda b, t: b.network.add_shape(t[0]),
    "parametric_relu": lambda b, t: b.network.add_parametric_relu(*t),
    "resize": _resize,
    "select": lambda b, t: b.network.add_select(*t),
    "fill": _fill,
    "quantize": _quantize,
    "dequantize": _dequantize,
    "dynamic_quantize": lambda b, t, axis, block, to, scale: b.network.add_dynamic_quantize(
        t[0], axis, block, b.dtype(to), b.dtype(scale)
    ),
    "scatter": _scatter,
    "einsum": lambda b, t, equation: b.network.add_einsum(t, equation),
    "one_hot": lambda b, t, axis=-1: b.network.add_one_hot(*t, axis),
    "reverse_sequence": lambda b, t: b.network.add_reverse_sequence(*t),
    "normalization": _normalization,
    "squeeze": lambda b, t: b.network.add_squeeze(*t),
    "unsqueeze": lambda b, t: b.network.add_unsqueeze(*t),
    "cumulative": lambda b, t, exclusive=False, reverse=False: b.network.add_cumulative(
        *t, b.trt.CumulativeOperation.SUM, exclusive, reverse
    ),
    "grid_sample": _grid_sample,
    "lrn": lambda b, t, window=3: b.network.add_lrn(t[0], window, 1e-4, 0.75, 1.0),
    "nms": lambda b, t: b.network.add_nms(*t),
    "non_zero": lambda b, t: b.network.add_non_zero(t[0]),
    "ragged_softmax": lambda b, t: b.network.add_ragged_softmax(*t),
    "assertion": _assertion,
    "attention": _attention,
    "rotary_embedding": lambda b, t, interleaved=False, dims=0: b.network.add_rotary_embedding(*t, interleaved, dims),
    "kv_cache_update": lambda b, t: b.network.add_kv_cache_update(*t, b.trt.KVCacheMode.LINEAR),
    "conditional": _conditional,
    "iterator": _iterator,
}
