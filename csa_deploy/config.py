"""The configuration of a deployment: defaults, then the workspace's, then a YAML file's, then flags.

Keys are those of :data:`csa_deploy.options.OPTIONS`; dashes and underscores mean the same. An unknown key is refused
by name, with the nearest known one. The resolved configuration is stored with every result.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from csa_deploy.cluster.connection import checked_cluster
from csa_deploy.errors import UsageError
from csa_deploy.naming import named_values, split_commas, unknown
from csa_deploy.network import Anchor, Fit, Sample, Task
from csa_deploy.network_parts import parse_part
from csa_deploy.options import OPTIONS, CalibrationMethod
from csa_deploy.records.errata import Severity
from csa_deploy.records.loadgen import Scenario
from csa_deploy.validation import invalid, read_mapping

if TYPE_CHECKING:
    from csa_deploy.metrics.task import Measured

DEFAULT_NETWORK = "convselfattn"
Precision = Literal["fp32", "fp16", "int8"]
Technique = Literal["equalization", "weight_rounding", "bias_correction"]

# What of a network that falls back from DLA to the GPU can be bounded.
FALLBACK = ("nodes", "subgraphs", "bytes")
# What a limit can bound: latency percentiles and memory.
LIMITED = (
    *("p50_ms", "p90_ms", "p95_ms", "p99_ms", "p999_ms", "max_ms"),
    *("weights_mib", "activations_mib", "engine_mib", "peak_mib"),
)
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
        for quantity in bounds:
            _known(quantity, dict.fromkeys(LIMITED), "quantity")
    return limits


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


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


SAFE = "safe"
"""Shorthand for the builder option of that name."""

Texts = Annotated[tuple[str, ...], BeforeValidator(split_commas)]


class Config(BaseModel):
    """A resolved configuration; see :data:`csa_deploy.options.OPTIONS` for the meaning of each key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: str = DEFAULT_NETWORK
    checkpoint: str | None = None
    checkpoint_key: str | None = None
    size: Annotated[tuple[int, int] | None, BeforeValidator(parse_size)] = None
    batch: Annotated[int, Field(ge=1)] | None = None
    sample: Annotated[Sample | None, BeforeValidator(_lower)] = None
    state: Texts = ()
    state_init: str | None = None
    input_shape: Annotated[dict[str, tuple[int, ...]], BeforeValidator(parse_input_shape)] = {}
    mean: Annotated[tuple[float, ...] | None, BeforeValidator(parse_numbers), AfterValidator(check_numbers)] = None
    std: Annotated[tuple[float, ...] | None, BeforeValidator(parse_numbers), AfterValidator(check_std)] = None
    scale: Annotated[float | None, BeforeValidator(lambda v: None if v is None else parse_scale(v))] = None
    channels: Annotated[Literal["rgb", "bgr", "grey"] | None, BeforeValidator(_lower)] = None
    layout: Annotated[Literal["nchw", "nhwc"] | None, BeforeValidator(_lower)] = None
    crop: Annotated[float, Field(gt=0, le=1)] | None = None
    interpolation: Annotated[Literal["nearest", "bilinear", "bicubic"] | None, BeforeValidator(_lower)] = None
    fit: Annotated[Fit | None, BeforeValidator(_lower)] = None
    fill: Annotated[tuple[int, ...] | None, BeforeValidator(parse_numbers), AfterValidator(check_fill)] = None
    anchor: Annotated[Anchor | None, BeforeValidator(_lower)] = None
    tensorrt: Annotated[str, BeforeValidator(parse_tensorrt)] = "10"
    opset: Annotated[int, Field(ge=11)] | None = None
    exporter: Literal["auto", "dynamo", "torchscript"] = "auto"
    export_tolerance: Annotated[float, Field(gt=0)] = 1e-4
    restricted: bool = False
    scope: Texts = ()
    strict: bool = False
    max_fallback: Annotated[dict[str, int], BeforeValidator(parse_max_fallback)] = {}
    fix: bool = False
    errata: bool | None = None
    fail_on: Severity | None = None
    precision: Annotated[tuple[Precision, ...], BeforeValidator(split_commas), Field(min_length=1)] = ("fp32", "fp16")
    fp16_io: bool = False
    keep_fp32: Texts = ()
    split: Texts = ()
    part: Annotated[dict[str, str], BeforeValidator(parse_part)] = {}
    calib: str | None = None
    calib_method: CalibrationMethod = "mse"
    calib_samples: Annotated[int, Field(ge=1)] = 512
    search: bool = True
    target_dla: bool = False
    techniques: Annotated[tuple[Technique, ...], BeforeValidator(parse_techniques)] = get_args(Technique)
    backend: Literal["auto", "tensorrt", "tensorrt-rtx", "trtexec"] = "auto"
    target: str | None = None
    builder_option: Texts = ()
    timing_cache: str | None = None
    builds: Annotated[int, Field(ge=1)] = 1
    reproducible: bool = False
    min_share: Annotated[dict[str, float], BeforeValidator(parse_min_share), AfterValidator(check_min_share)] = {}
    compute_capability: Texts = ()
    data: str | None = None
    task: Annotated[Task | None, BeforeValidator(_lower)] = None
    decode: str | None = None
    score_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    nms_iou: Annotated[float, Field(ge=0, le=1)] | None = None
    samples: Annotated[int, Field(ge=1)] | None = None
    candidate: Texts = ()
    localize: bool | None = None
    provider: Literal["cpu", "cuda", "tensorrt"] = "cpu"
    int8_arithmetic: Literal["float", "gpu", "dla"] = "float"
    seed: Annotated[int, Field(ge=0)] = 0
    metric: Texts = ()
    budget: Annotated[dict[str, dict[str, float]], BeforeValidator(parse_budget), AfterValidator(check_budget)] = {}
    iterations: Annotated[int, Field(ge=1)] = 100
    seconds: Annotated[float, Field(gt=0)] | None = None
    warmup: Annotated[int, Field(ge=0)] = 5
    limit: Annotated[dict[str, dict[str, float]], BeforeValidator(parse_limit), AfterValidator(check_limit)] = {}
    baseline: str | None = None
    max_slowdown: Annotated[float, Field(gt=0)] = 0.02
    loadgen: bool | None = None
    scenario: Annotated[tuple[Scenario, ...], BeforeValidator(parse_scenarios)] = ()
    frame_rate: Annotated[float, Field(gt=0, le=1e6)] | None = None
    loadgen_settings: str | None = None
    threads: Annotated[int, Field(ge=1)] | None = None
    cluster: Annotated[str, AfterValidator(checked_cluster)] | None = None

    def bounds(self, precision: str) -> dict[str, float]:
        """The accuracy budget of a precision: defaults overridden metric by metric."""
        from csa_deploy.metrics.table import default_budget

        return {**default_budget(precision, [task.name for task in self.tasks()]), **self.budget.get(precision, {})}

    def asked(self, precision: str) -> tuple[str, ...]:
        """Keys of the budget that were asked for, whether or not their bounds are the defaults."""
        return tuple(self.budget.get(precision, {}))

    def tasks(self) -> list[Measured]:
        """The task metrics to measure: those of the task and of ``metric``, and those that a bound was asked for."""
        from csa_deploy.tasks.plugins import tasks_of
        from csa_deploy.tasks.stock import names_of

        bounds = (key for bounds in self.budget.values() for key in bounds)
        return tasks_of([*names_of(self.task), *self.metric], bounds)

    @property
    def code(self) -> list[str]:
        """Metrics and functions of the user that decide what is measured."""
        return [*self.metric, *filter(None, [self.decode])]

    def to_json(self) -> dict[str, Any]:
        """JSON form with defaults filled in, but for the budget: what was asked for counts more than a default."""
        return self.model_dump(mode="json")


def normalise(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Turn dashes into underscores, resolve shorthands and refuse unknown keys by name.

    Raises:
        UsageError: an unknown key, a key given twice, or a shorthand that is not true or false.
    """
    known = ["network", *OPTIONS]
    values: dict[str, Any] = {}
    shorthand: list[str] = []
    for key, value in raw.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise UsageError(f"{where}: {unknown('key', name, known)}", fix=f"known keys: {', '.join(sorted(known))}")
        if name in values:
            raise UsageError(f"{where}: key '{name}' is given twice", fix="keep one of them")
        if name in OPTIONS and OPTIONS[name].shorthand:
            if not isinstance(value, bool):
                raise UsageError(f"{where}: {key} is true or false, not {value!r}", fix=f"write {key}: true")
            shorthand += [name] if value and name != SAFE else []
            values |= {SAFE: True} if value and name == SAFE else {}
        else:
            values[name] = value
    if shorthand:
        given = split_commas(values.get("precision", []))
        values["precision"] = [*given, *(s for s in shorthand if s not in given)]
    return values


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a configuration file.

    Raises:
        UsageError: the file is missing, no YAML, or not a mapping; unknown keys.
    """
    data = read_mapping(path, "configuration", example="write lines such as 'network: csa_digits'")
    return normalise(data, str(path))


def make_config(*layers: Mapping[str, Any]) -> Config:
    """Merge layers of settings (later ones win) and validate them.

    Raises:
        UsageError: a value is not valid; the line names the key, the value and what is expected.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged.update({k: v for k, v in layer.items() if v is not None})
    merged.pop("workspace", None)
    if merged.get("metric"):
        from csa_deploy.tasks.plugins import known_as

        merged["metric"] = known_as(merged["metric"])
    if merged.pop(SAFE, False):  # here, so that it adds to the options of another layer
        merged["builder_option"] = [*(split_commas(merged.get("builder_option")) or ()), SAFE]
    try:
        return _with_parts(Config(**merged))
    except ValidationError as error:
        raise invalid(error) from None


def _with_parts(config: Config) -> Config:
    """The configuration with the precisions that the parts of a split network have.

    Equalization is left out where one is in INT8: it moves factors through the cut, and the calibration cache that a
    DLA needs is of the graph without them.
    """
    if config.part and not config.split:
        raise UsageError("--part is about a split network", fix="add --split TENSOR, or leave out --part")
    if not config.split:
        return config
    wanted = [said.partition("@")[0] for said in config.part.values()] or ["fp16"]
    changed: dict[str, Any] = {"precision": tuple(dict.fromkeys([*config.precision, *wanted]))}
    if "int8" in wanted:
        changed["techniques"] = tuple(name for name in config.techniques if name != "equalization")
    return config.model_copy(update=changed)


def inherited(stored: Mapping[str, Any], network: str) -> dict[str, Any]:
    """Of the settings that a workspace stores those that count for what is done next there: not those at their default.

    Args:
        stored: the workspace's.
        network: what is worked on; of another network nothing is inherited.
    """
    if stored.get("network") != network:
        return {}
    defaults = Config(network=network).to_json()
    if "precision" in stored:  # the stored budget is resolved: the defaults of these precisions are in it
        defaults["budget"] = make_config({"precision": stored["precision"]}).to_json()["budget"]
    return {k: v for k, v in stored.items() if k in Config.model_fields and v != defaults.get(k)}
