"""Activations, unary and element-wise operators, and what the parser composes of them."""

from __future__ import annotations

from typing import Any

from csa_deploy.restricted.graph import Value
from csa_deploy.restricted.mapping.recorder import Recorder, UnmappableError, importer

_ACTIVATIONS: dict[str, tuple[str, dict[str, float]]] = {
    "Relu": ("RELU", {}),
    "Sigmoid": ("SIGMOID", {}),
    "Tanh": ("TANH", {}),
    "LeakyRelu": ("LEAKY_RELU", {"alpha": 0.01}),
    "Elu": ("ELU", {"alpha": 1.0}),
    "Selu": ("SELU", {"alpha": 1.67326319, "gamma": 1.05070102}),
    "Softplus": ("SOFTPLUS", {}),
    "Softsign": ("SOFTSIGN", {}),
    "HardSigmoid": ("HARD_SIGMOID", {"alpha": 0.2, "beta": 0.5}),
    "ThresholdedRelu": ("THRESHOLDED_RELU", {"alpha": 1.0}),
    "ScaledTanh": ("SCALED_TANH", {"alpha": 1.0, "beta": 1.0}),
    "ParametricSoftplus": ("SOFTPLUS", {"alpha": 1.0, "beta": 1.0}),
}

_UNARIES = {
    "Abs": "ABS", "Acos": "ACOS", "Acosh": "ACOSH", "Asin": "ASIN", "Asinh": "ASINH", "Atan": "ATAN",
    "Atanh": "ATANH", "Ceil": "CEIL", "Cos": "COS", "Cosh": "COSH", "Erf": "ERF", "Exp": "EXP", "Floor": "FLOOR",
    "IsInf": "ISINF", "IsNaN": "ISNAN", "Log": "LOG", "Neg": "NEG", "Not": "NOT", "Reciprocal": "RECIP",
    "Round": "ROUND", "Sign": "SIGN", "Sin": "SIN", "Sinh": "SINH", "Sqrt": "SQRT", "Tan": "TAN",
}  # fmt: skip

_ELEMENTWISE = {
    "Add": "SUM", "Sub": "SUB", "Mul": "PROD", "Div": "DIV", "Pow": "POW", "Min": "MIN", "Max": "MAX", "Sum": "SUM",
    "And": "AND", "Or": "OR", "Xor": "XOR", "Equal": "EQUAL", "Less": "LESS", "Greater": "GREATER",
}  # fmt: skip


@importer(*_ACTIVATIONS)
def _activation(net: Recorder) -> None:
    kind, defaults = _ACTIVATIONS[net.node.op]
    facts = {name: net.attr(name, value) for name, value in defaults.items() if name in ("alpha", "beta")}
    net.activation(kind, net.tensor(0), net.out, **facts)


@importer(*_UNARIES)
def _unary(net: Recorder) -> None:
    source = net.tensor(0)
    if net.node.op == "Neg" and net.dtype(source) in ("int32", "int64") and net.version < (10,):
        net.elementwise("SUB", net.scalar(source.dtype, source.rank), source, net.out)
        return
    if net.node.op == "IsNaN" and net.version < (10,):
        equal = net.add("ELEMENTWISE", [source, source], Value("", "bool", source.shape), kind="EQUAL")
        net.unary("NOT", equal, net.out)
        return
    net.unary(_UNARIES[net.node.op], source, net.out)


@importer(*_ELEMENTWISE)
def _elementwise(net: Recorder) -> None:
    values = [net.as_tensor(value) for value in net.node.inputs if value is not None]
    if not values:
        raise UnmappableError("mapping-failed", "it has no input")
    net.require_opset_7()
    kind = _ELEMENTWISE[net.node.op]
    if len(values) == 1:
        net.add("IDENTITY", values, net.out)
        return
    values = net.same_rank(*values)
    result = values[0]
    for index, value in enumerate(values[1:], 2):
        if kind == "POW" and value.dtype != result.dtype:  # the one operator whose operands may differ in type
            value = net.cast(value, result.dtype)
        result = net.elementwise(kind, result, value, net.out if index == len(values) else None)


@importer("Mean")
def _mean(net: Recorder) -> None:
    values = net.same_rank(*[net.as_tensor(value) for value in net.node.inputs if value is not None])
    result = values[0]
    for value in values[1:]:
        result = net.elementwise("SUM", result, value)
    net.elementwise("DIV", result, net.scalar(result.dtype, result.rank), net.out)


@importer("GreaterOrEqual", "LessOrEqual")
def _or_equal(net: Recorder) -> None:
    a, b = net.same_rank(net.tensor(0), net.tensor(1))
    part = Value("", "bool", net.out.shape)
    strict = net.elementwise("GREATER" if net.node.op.startswith("G") else "LESS", a, b, part)
    equal = net.elementwise("EQUAL", a, b, part)
    net.elementwise("OR", strict, equal, net.out)


@importer("Mod")
def _mod(net: Recorder) -> None:
    a, b = net.same_rank(net.tensor(0), net.tensor(1))
    if net.attr("fmod", 0):
        quotient = net.elementwise("DIV", a, b)
        if net.version >= (10,) and net.dtype(a) not in (
            "int32",
            "int64",
        ):  # truncation towards zero, composed of floor, ceiling and a choice by sign
            sign = net.elementwise("LESS", quotient, net.scalar(a.dtype, a.rank), Value("", "bool", quotient.shape))
            floor, ceil = net.unary("FLOOR", quotient, quotient), net.unary("CEIL", quotient, quotient)
            quotient = net.add("SELECT", [sign, ceil, floor], quotient)
    elif net.version >= (10,) and net.dtype(a) not in ("int32", "int64"):
        raise UnmappableError("not-imported", "Mod of floating-point numbers without fmod")
    else:
        quotient = net.elementwise("FLOOR_DIV", a, b)
    net.elementwise("SUB", a, net.elementwise("PROD", quotient, b), net.out)


@importer("Clip")
def _clip(net: Recorder) -> None:
    source = net.tensor(0)
    bounds = [net.node.input(1), net.node.input(2)]
    constant = all(bound is None or bound.weights for bound in bounds)
    if net.version >= (10,) and net.opset >= 11 and bounds == [None, None]:
        constant = False  # the parser sends a Clip without bounds the other way
    if constant and net.dtype(source) not in ("int32", "int64"):
        low, high = _bound(net, 1, "min"), _bound(net, 2, "max")
        finite = all(value is None or value == value for value in (low, high))
        net.activation("CLIP", source, net.out, alpha=low, beta=high, non_finite=not finite)
        return
    if net.dtype(source) not in ("float32", "float16", "bfloat16", "int32", "int64"):
        net.refuse_from_10(f"a Clip of {net.dtype(source)} whose bounds are no initializers")
    result = source
    for kind, bound in zip(("MAX", "MIN"), bounds, strict=True):
        limit = net.scalar(source.dtype, source.rank) if bound is None else net.as_tensor(bound)
        result = net.elementwise(kind, result, limit, net.out)


def _bound(net: Recorder, index: int, name: str) -> float | None:
    value = net.node.input(index)
    if value is not None:
        return None if value.data is None or value.data.size != 1 else float(value.data.reshape(-1)[0])
    largest = 3.4028234663852886e38
    return float(net.attr(name, -largest if name == "min" else largest))


@importer("HardSwish")
def _hard_swish(net: Recorder) -> None:
    source = net.tensor(0)
    gate = net.activation("HARD_SIGMOID", source, Value("", source.dtype, source.shape), alpha=1 / 6, beta=0.5)
    net.elementwise("PROD", source, gate, net.out)


@importer("Swish", since=(11,))
def _swish(net: Recorder) -> None:
    source = net.tensor(0)
    scaled = net.elementwise("PROD", source, net.scalar(source.dtype, source.rank))
    gate = net.activation("SIGMOID", scaled, Value("", source.dtype, source.shape))
    net.elementwise("PROD", source, gate, net.out)


@importer("Gelu", since=(10,))
def _gelu(net: Recorder) -> None:
    kind = "GELU_TANH" if net.attr("approximate", "none") == "tanh" else "GELU_ERF"
    net.activation(kind, net.tensor(0), net.out)


@importer("Mish", since=(10,))
def _mish(net: Recorder) -> None:
    source = net.tensor(0)
    inner = Value("", source.dtype, source.shape)
    net.activation("TANH", net.activation("SOFTPLUS", source, inner, alpha=1.0, beta=1.0), inner)
    net.elementwise("PROD", source, inner, net.out)


@importer("Celu")
def _celu(net: Recorder) -> None:
    source = net.tensor(0)
    if net.dtype(source) != "float32":
        net.refuse_from_10(f"a Celu of {net.dtype(source)}: its constants are float32")
    zero, one, alpha = (net.scalar(source.dtype, source.rank) for _ in range(3))
    raised = net.unary("EXP", net.elementwise("DIV", source, alpha), Value("", source.dtype, source.shape))
    positive = net.elementwise("MAX", source, zero)
    negative = net.elementwise("MIN", zero, net.elementwise("PROD", alpha, net.elementwise("SUB", raised, one)))
    net.elementwise("SUM", positive, negative, net.out)


@importer("Shrink")
def _shrink(net: Recorder) -> None:
    source = net.cast(net.tensor(0), "float32")
    output = Value("", "float32", source.shape)
    for kind in ("LESS", "GREATER"):
        limit, bias = net.scalar("float32", source.rank), net.scalar("float32", source.rank)
        mask = net.elementwise(kind, source, limit, Value("", "bool", source.shape))
        moved = net.elementwise("SUM" if kind == "LESS" else "SUB", source, bias)
        net.add("SELECT", [mask, moved, output], output)
    net.cast(output, net.out.dtype, net.out)


@importer("PRelu")
def _prelu(net: Recorder) -> None:
    net.require_opset_7()
    source, slope = net.same_rank(net.tensor(0), net.tensor(1))
    net.add("PARAMETRIC_RELU", [source, slope], net.out)


@importer("Where")
def _where(net: Recorder) -> None:
    values: list[Any] = net.same_rank(net.tensor(0), net.tensor(1), net.tensor(2))
    net.add("SELECT", values, net.out)


@importer("Identity")
def _identity(net: Recorder) -> None:
    net.add("IDENTITY", [net.tensor(0)], net.out)


@importer("Dropout")
def _dropout(net: Recorder) -> None:
    training = net.node.input(2)
    if training is not None and (training.data is None or bool(training.data.any())):
        raise UnmappableError("not-imported", "Dropout in training mode")
    source = net.tensor(0)
    net.add("IDENTITY", [source], net.out)
    for mask in net.node.outputs[1:]:
        if mask.name:
            net.elementwise("EQUAL", source, source, mask)


@importer("Cast")
def _cast(net: Recorder) -> None:
    net.cast(net.tensor(0), net.dtype(net.out), net.out)


@importer("CastLike", since=(10,))
def _cast_like(net: Recorder) -> None:
    source = net.tensor(0)
    net.required(1)
    net.cast(source, net.dtype(net.out), net.out)
