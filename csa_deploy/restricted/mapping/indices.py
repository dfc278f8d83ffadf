"""Operators between positions and one-hot vectors."""

from __future__ import annotations

from csa_deploy.restricted.graph import Value
from csa_deploy.restricted.mapping.recorder import Recorder, importer


@importer("OneHot")
def _one_hot(net: Recorder) -> None:
    indices, depth, values = net.tensor(0), net.tensor(1), net.tensor(2)
    net.add("ONE_HOT", [indices, values, depth], net.out, axis=net.axis(net.attr("axis", -1), net.out.rank))


@importer("NonZero")
def _non_zero(net: Recorder) -> None:
    net.add("NON_ZERO", [net.tensor(0)], net.out)


@importer("Hardmax", since=(10,))
def _hardmax(net: Recorder) -> None:
    if net.opset >= 13:  # as for Softmax
        net.refuse_vectors()
    source = net.tensor(0)
    axis = net.axis(net.attr("axis", -1), source.rank)
    if net.opset >= 13:
        net.refuse_far_axis(axis, source.rank)
    kept = None
    if source.shape is not None and axis is not None:
        kept = (*source.shape[:axis], 1, *source.shape[axis + 1 :])
    best = Value("", "int32", kept)
    net.add("TOPK", [source], [Value("", source.dtype, kept), best], kind="MAX", k=1, axes=[axis])
    narrow = None if kept is None or axis is None else (*kept[:axis], *kept[axis + 1 :])
    best = net.squeeze(best, Value("", "int32", narrow))
    hot = Value("", "int32", source.shape)
    values, depth = net.as_tensor(Value("", "int32", (2,), True)), net.as_tensor(Value("", "int32", (), True))
    net.add("ONE_HOT", [best, values, depth], hot, axis=axis)
    net.cast(hot, source.dtype, net.out)
