"""Attention and its companions: operators that TensorRT took up late, and that safety scopes refuse."""

from __future__ import annotations

from csa_deploy.restricted.graph import Value
from csa_deploy.restricted.mapping.recorder import Recorder, UnmappableError, importer


@importer("Attention", since=(10, 12))
def _attention(net: Recorder) -> None:
    if len([output for output in net.node.outputs if output.name]) > 1:
        raise UnmappableError("not-imported", "outputs other than the attended values")
    query, key, value = (net.tensor(index) for index in range(3))
    if query.rank is None:
        raise UnmappableError("unknown-shape", "the rank of its input is not known")
    query, key = _heads(net, query, "q_num_heads"), _heads(net, key, "kv_num_heads")
    value = _heads(net, value, "kv_num_heads")
    query = net.elementwise("PROD", query, net.scalar(query.dtype, 4))
    key = net.elementwise("PROD", key, net.scalar(key.dtype, 4))
    mask = net.node.input(3)
    more = [net.as_tensor(mask)] if mask is not None else []
    shape = None
    if query.shape is not None and value.shape is not None and len(value.shape) == 4:
        shape = (*query.shape[:3], value.shape[3])
    inner = Value("", query.dtype, shape)
    net.add("ATTENTION_INPUT", [query, key, value, *more], inner)
    net.add("ATTENTION_OUTPUT", [inner], inner)
    if net.out.rank == 3:
        net.shuffle(inner, net.out)


def _heads(net: Recorder, value: Value, attribute: str) -> Value:
    """(batch, length, heads * size) as (batch, heads, length, size); four dimensions stay."""
    heads = net.attr(attribute)
    if value.shape is None or len(value.shape) != 3 or not heads:
        return value
    batch, length, width = value.shape
    return net.reshape(value, (batch, heads, length, None if width is None else width // heads))


@importer("RMSNormalization", since=(10, 12))
def _rms_norm(net: Recorder) -> None:
    source, scale = net.tensor(0), net.tensor(1)
    if source.shape is None:
        raise UnmappableError("unknown-shape", "the rank of its input is not known")
    first = net.axis(net.attr("axis", -1), source.rank) or 0
    given, shape = source, source.shape
    if net.dtype(source) not in ("float32", "float16", "bfloat16"):
        source = net.cast(source, "float32")
    reduced = Value("", source.dtype, (*shape[:first], *(1,) * (len(shape) - first)))
    squared = net.elementwise("PROD", source, source)
    axes = list(range(first, len(shape)))
    net.add("REDUCE", [squared], reduced, kind="AVG", axes=axes, keep_dims=True)
    shifted = net.elementwise("SUM", reduced, net.scalar(source.dtype, source.rank))
    scaled = net.elementwise("DIV", source, net.unary("SQRT", shifted, reduced))
    net.elementwise("PROD", scaled if source is given else net.cast(scaled, given.dtype), scale, net.out)


@importer("RotaryEmbedding", since=(10, 12))
def _rotary(net: Recorder) -> None:
    source, *rest = [net.as_tensor(value) for value in net.node.inputs if value is not None]
    split = _heads(net, source, "num_heads")
    if split is source:
        net.add("ROTARY_EMBEDDING", [source, *rest], net.out)
        return
    turned = net.add("ROTARY_EMBEDDING", [split, *rest], Value("", source.dtype, split.shape))
    net.shuffle(turned, net.out)


@importer("TensorScatter", since=(10, 12))
def _cache_update(net: Recorder) -> None:
    cache, update = net.tensor(0), net.tensor(1)
    more = [net.index(net.tensor(2))] if net.node.input(2) is not None else []
    net.add("KVCACHE_UPDATE", [cache, update, *more], net.out)
