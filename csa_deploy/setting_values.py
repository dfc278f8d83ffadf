"""Values of settings, as a command line or a YAML file has them: read, and refused with what would be right."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, get_args

from csa_deploy.naming import named_values, split_commas, unknown
from csa_deploy.records.loadgen import Scenario
from csa_deploy.records.profile import PERCENTILE_OF

Precision = Literal["fp32", "fp16", "int8"]
Technique = Literal["equalization", "clip_equalization", "range_choice", "weight_rounding", "bias_correction"]

# What of a network that falls back from DLA to the GPU can be bounded.
FALLBACK = ("nodes", "subgraphs", "bytes")
# What a limit can bound: latency percentiles and memory.
LIMITED = (*PERCENTILE_OF, "max_ms", "weights_mib", "activations_mib", "engine_mib", "peak_mib")
# An engine's series: on the host, and by the device's clock.
ENGINE_SERIES = ("", " device", " transfers", " cuda graph")

REDUCED = ("fp16", "int8")


def parse_size(value: Any) -> tuple[int, int] | None:
    """``224``, ``"224"``, ``"256x448"`` or ``[256, 448]`` to (height, width) in pixels."""
    if value is None:
        return None
    sides = [str(v) for v in value] if isinstance(value, (list, tuple)) else re.split(r"[xX]", str(value))
    if len(sides) not in (1, 2) or not all(re.fullmatch(r"\d+", s) and int(s) > 0 for s in sides):
        raise ValueError("a size is one side in pixels or HEIGHTxWIDTH, such as 224 or 256x448")
    return int(sides[0]), int(sides[-1])


def parse_input_shape(value: Any) -> Any:
    """``["x=1x3x480x640"]``, ``"1x3x480x640"`` or a mapping to {input: extents}; the single input is named ``""``."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, int) for v in value):
        value = {"": value}
    if isinstance(value, (list, tuple)):
        value = named_values([part for item in value for part in str(item).split(",")], "input", "NAME=SHAPE")
    if not isinstance(value, Mapping):
        return value
    return {str(name): _extents(shape) for name, shape in value.items()}


def _extents(shape: Any) -> tuple[int, ...]:
    parts = [str(e) for e in shape] if isinstance(shape, (list, tuple)) else re.split(r"[xX]", str(shape))
    if not all(re.fullmatch(r"\d+", part) and int(part) > 0 for part in parts):
        raise ValueError(f"'{shape}' is no shape of positive extents, such as 1x3x224x224")
    return tuple(int(part) for part in parts)


def parse_numbers(value: Any) -> Any:
    """``"0.485,0.456,0.406"``, ``0.5`` or a list to a tuple of numbers; equal ones are all kept."""
    if value is None or isinstance(value, (list, tuple)):
        return value
    try:
        return tuple(float(part) for part in str(value).split(","))
    except ValueError:
        raise ValueError("numbers are written with commas between them, such as 0.485,0.456,0.406") from None


def parse_scale(value: Any) -> Any:
    """A number, or a fraction such as ``1/255``."""
    parts = str(value).split("/")
    try:
        numbers = [float(part) for part in parts]
        scale = numbers[0] if len(numbers) == 1 else numbers[0] / numbers[1]
    except (ValueError, ZeroDivisionError):
        scale = 0.0
    if len(parts) > 2 or not 0 < scale < float("inf"):
        raise ValueError("a scale is a number above 0, such as 1, 1/255 or 0.017")
    return scale


def check_numbers(values: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Refuse what is no finite number, and more or fewer numbers than an image has channels."""
    if values is not None and (len(values) not in (1, 3) or not all(math.isfinite(v) for v in values)):
        raise ValueError("give one finite number, or one per channel (three)")
    return values


def check_std(values: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """As :func:`check_numbers`, and refuse a division by zero."""
    if values is not None and 0.0 in values:
        raise ValueError("a standard deviation is not 0")
    return check_numbers(values)


def check_fill(values: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """As :func:`check_numbers`, and refuse what is no pixel."""
    if values is not None and not all(value in range(256) for value in values):
        raise ValueError("a pixel is from 0 to 255")
    check_numbers(values)
    return values


def parse_scenarios(value: Any) -> Any:
    """Names of the load generator's scenarios; an unknown one is refused by name."""
    names = split_commas(value)
    for name in names if isinstance(names, list) else ():
        _known(str(name), dict.fromkeys(get_args(Scenario)), "scenario")
    return names


def parse_techniques(value: Any) -> Any:
    """``auto`` is every technique, ``none`` is none; dashes and underscores mean the same."""
    names = [str(name).replace("-", "_") for name in split_commas(value)]
    every = [name.replace("_", "-") for name in get_args(Technique)]
    for name in names:
        _known(name.replace("_", "-"), dict.fromkeys(["auto", "none", *every]), "technique")
        if name in ("auto", "none") and len(names) > 1:
            raise ValueError(f"'{name}' stands alone; to choose among them, list some of {', '.join(every)}")
    return {"auto": get_args(Technique), "none": ()}.get(",".join(names), names)


def parse_budget(value: Any) -> Any:
    """``["fp16.snr_db=40"]``, ``{"fp16.snr_db": 40}`` or a mapping of mappings to {precision: {metric: bound}}.

    A bound of one output names it, as in ``fp16.boxes.snr_db=45``: its key is then ``boxes.snr_db``. Without a
    precision, as in ``top1-drop=0.5``, the bound is for every reduced precision, and a drop in accuracy is in
    percentage points, as people say it; with one (``int8.top1_drop=0.005``) it is a share of 1, as in the report.
    """
    budget: dict[str, dict[str, float]] = {}
    if isinstance(value, Mapping):
        budget = {key: dict(bounds) if isinstance(bounds, Mapping) else bounds for key, bounds in value.items()}
        value = [f"{key}={budget.pop(key)}" for key in value if _is_flat(key, value[key])]
    if not isinstance(value, (list, tuple)):
        return value
    for item in value:
        match = re.fullmatch(r"(?:(\w+)\.)?((?:.+\.)?)([\w-]+)=([-+.\deE]+)", str(item).strip())
        if not match:
            raise ValueError(f"'{item}' is not PRECISION.METRIC=VALUE, such as fp16.snr_db=40")
        precision, metric = match[1], f"{match[2]}{match[3].replace('-', '_')}"
        points = precision is None and metric == "top1_drop"
        try:  # in decimals, so that 0.7 points are 0.007 and a drop of 7 in 1,000 meets them
            bound = float(Decimal(match[4]) / 100) if points else float(match[4])
        except InvalidOperation as error:
            raise ValueError(f"'{item}' bounds by no number, such as fp16.snr_db=40") from error
        for name in [precision] if precision else REDUCED:
            budget.setdefault(name, {})[metric] = bound
    return budget


def _is_flat(key: Any, bound: Any) -> bool:
    return isinstance(bound, (int, float, str)) and key not in get_args(Precision)


def check_budget(budget: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Refuse unknown precisions and metrics by name, and shares that are none."""
    import csa_deploy.tasks.stock  # noqa: F401 (whose metrics bounds may name)
    from csa_deploy.metrics.table import bounded

    for precision, bounds in budget.items():
        _known(precision, dict.fromkeys(get_args(Precision)), "precision")
        for key, bound in bounds.items():
            metric = key.rpartition(".")[2]
            _require_number(f"{precision}.{key}", bound)
            _known(metric, bounded(), "metric", "; one of yours needs --metric file.py:NAME")
            if bounded()[metric].unit == "share" and not 0.0 <= bound <= 1.0:
                raise ValueError(
                    f"{precision}.{key} is a share from 0 to 1, not {bound:g}: write 0.95 for 95 %, 0.005 for half "
                    "a point; only top1-drop=VALUE without a precision is in percentage points, from 0 to 100"
                )
    return budget


def parse_limit(value: Any) -> Any:
    """``["engine-fp16.p99_ms=5"]`` or a mapping of mappings to {label: {quantity: bound}}; labels with spaces."""
    if isinstance(value, Mapping):
        return {str(label).replace("-", " "): bounds for label, bounds in value.items()}
    if not isinstance(value, (list, tuple)):
        return value
    limits: dict[str, dict[str, float]] = {}
    for item in value:
        match = re.fullmatch(r"([\w -]+)\.(\w+)=([-+.\deE]+)", str(item).strip())
        if not match:
            raise ValueError(f"'{item}' is not LABEL.QUANTITY=VALUE, such as engine-fp16.p99_ms=5")
        label, quantity, bound = match.groups()
        limits.setdefault(label.replace("-", " "), {})[quantity] = float(bound)
    return limits


def check_limit(limits: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Refuse unknown labels and quantities by name."""
    precisions = get_args(Precision)
    labels = dict.fromkeys(
        ["exported", "split", *precisions, *(f"engine {p}{s}" for p in precisions for s in ENGINE_SERIES)]
    )
    for label, bounds in limits.items():
        _known(label, labels, "graph or engine")
        for quantity, bound in bounds.items():
            _require_number(f"{label}.{quantity}", bound)
            _known(quantity, dict.fromkeys(LIMITED), "quantity")
    return limits


def _require_number(what: str, bound: float) -> None:
    """Nothing ever breaks a bound that is infinite or not a number."""
    if not math.isfinite(bound):
        raise ValueError(f"{what} is bounded by {bound:g}, which nothing would break")


def _known(name: str, known: Mapping[str, Any], what: str, else_: str = "") -> None:
    if name not in known:
        raise ValueError(f"{unknown(what, name, known)}; known: {', '.join(known)}{else_}")


def parse_max_fallback(value: Any) -> Any:
    """``["nodes=3,bytes=1KiB"]`` or a mapping to {quantity: bound}; bytes may be in KiB or MiB."""
    if isinstance(value, Mapping):
        value = [f"{quantity}={bound}" for quantity, bound in value.items()]
    if not isinstance(value, (str, list, tuple)):
        return value
    bounds: dict[str, int] = {}
    for item in split_commas(value):
        match = re.fullmatch(r"(\w+)=(\d+) *(KiB|MiB|)", str(item))
        if not match or (match[3] and match[1] != "bytes"):
            raise ValueError(f"'{item}' is not QUANTITY=NUMBER, such as nodes=3 or bytes=1KiB")
        _known(match[1], dict.fromkeys(FALLBACK), "quantity")
        bounds[match[1]] = int(match[2]) << {"": 0, "KiB": 10, "MiB": 20}[match[3]]
    return bounds


def parse_min_share(value: Any) -> Any:
    """``["fp16=0.95"]`` or a mapping to {precision: share}."""
    if isinstance(value, Mapping) or not isinstance(value, (str, list, tuple)):
        return value
    shares = named_values([str(item) for item in split_commas(value)], "precision", "PRECISION=SHARE")
    for name, share in shares.items():
        if not name or not re.fullmatch(r"\d*\.?\d+", share):
            raise ValueError(f"'{f'{name}={share}'.strip('=')}' is not PRECISION=SHARE, such as fp16=0.95")
    return shares


def check_min_share(shares: dict[str, float]) -> dict[str, float]:
    """Refuse unknown precisions by name, and what is no share."""
    for precision, share in shares.items():
        _known(precision, dict.fromkeys(REDUCED), "reduced precision")
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"{precision}={share:g} is no share from 0 to 1: write 0.95 for 95 %")
    return shares


def parse_tensorrt(value: Any) -> str:
    """A version of a TensorRT that is served, with as many parts as are known: ``10``, ``8.6.11``."""
    if isinstance(value, float) and value >= 10:
        raise ValueError("put it in quotes: YAML reads 10.10 as the number 10.1")
    if not re.fullmatch(r"(8\.6|10|11)(\.\d+){0,3}", str(value)):
        raise ValueError("it should be '8.6', '10' or '11', or begin so, such as '10.13.3'")
    return str(value)


def lower(value: Any) -> Any:
    """In lower case, where it is text."""
    return value.lower() if isinstance(value, str) else value
