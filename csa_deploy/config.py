"""The configuration of a deployment: defaults, then the workspace's, then a YAML file's, then flags.

Keys are those of :data:`csa_deploy.options.OPTIONS`; dashes and underscores mean the same. An unknown key is refused
by name, with the nearest known one. The resolved configuration is stored with every result.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from csa_deploy import setting_values as text
from csa_deploy.cluster.connection import checked_cluster
from csa_deploy.errors import UsageError
from csa_deploy.naming import split_commas, unknown
from csa_deploy.network import Anchor, Fit, Sample, Task
from csa_deploy.network_parts import parse_part
from csa_deploy.options import OPTIONS, CalibrationMethod
from csa_deploy.records.errata import Severity
from csa_deploy.records.loadgen import Scenario
from csa_deploy.setting_values import Precision, Technique
from csa_deploy.validation import invalid, read_mapping

if TYPE_CHECKING:
    from csa_deploy.metrics.task import Measured

DEFAULT_NETWORK = "convselfattn"
SAFE = "safe"
"""Shorthand for the builder option of that name."""

Bounds = dict[str, dict[str, float]]
Numbers = Annotated[tuple[float, ...] | None, BeforeValidator(text.parse_numbers)]
Texts = Annotated[tuple[str, ...], BeforeValidator(split_commas)]


class Config(BaseModel):
    """A resolved configuration; see :data:`csa_deploy.options.OPTIONS` for the meaning of each key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: str = DEFAULT_NETWORK
    checkpoint: str | None = None
    checkpoint_key: str | None = None
    size: Annotated[tuple[int, int] | None, BeforeValidator(text.parse_size)] = None
    batch: Annotated[int, Field(ge=1)] | None = None
    sample: Annotated[Sample | None, BeforeValidator(text.lower)] = None
    state: Texts = ()
    state_init: str | None = None
    input_shape: Annotated[dict[str, tuple[int, ...]], BeforeValidator(text.parse_input_shape)] = {}
    mean: Annotated[Numbers, AfterValidator(text.check_numbers)] = None
    std: Annotated[Numbers, AfterValidator(text.check_std)] = None
    scale: Annotated[float | None, BeforeValidator(lambda v: None if v is None else text.parse_scale(v))] = None
    channels: Annotated[Literal["rgb", "bgr", "grey"] | None, BeforeValidator(text.lower)] = None
    layout: Annotated[Literal["nchw", "nhwc"] | None, BeforeValidator(text.lower)] = None
    crop: Annotated[float, Field(gt=0, le=1)] | None = None
    interpolation: Annotated[Literal["nearest", "bilinear", "bicubic"] | None, BeforeValidator(text.lower)] = None
    fit: Annotated[Fit | None, BeforeValidator(text.lower)] = None
    fill: Annotated[tuple[int, ...] | None, BeforeValidator(text.parse_numbers), AfterValidator(text.check_fill)] = None
    anchor: Annotated[Anchor | None, BeforeValidator(text.lower)] = None
    tensorrt: Annotated[str, BeforeValidator(text.parse_tensorrt)] = "10"
    opset: Annotated[int, Field(ge=11)] | None = None
    exporter: Literal["auto", "dynamo", "torchscript"] = "auto"
    export_tolerance: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-4
    restricted: bool = False
    scope: Texts = ()
    strict: bool = False
    max_fallback: Annotated[dict[str, int], BeforeValidator(text.parse_max_fallback)] = {}
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
    techniques: Annotated[tuple[Technique, ...], BeforeValidator(text.parse_techniques)] = get_args(Technique)
    backend: Literal["auto", "tensorrt", "tensorrt-rtx", "trtexec"] = "auto"
    target: str | None = None
    builder_option: Texts = ()
    timing_cache: str | None = None
    builds: Annotated[int, Field(ge=1)] = 1
    reproducible: bool = False
    min_share: Annotated[
        dict[str, float], BeforeValidator(text.parse_min_share), AfterValidator(text.check_min_share)
    ] = {}
    compute_capability: Texts = ()
    data: str | None = None
    task: Annotated[Task | None, BeforeValidator(text.lower)] = None
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
    budget: Annotated[Bounds, BeforeValidator(text.parse_budget), AfterValidator(text.check_budget)] = {}
    iterations: Annotated[int, Field(ge=1)] = 100
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    warmup: Annotated[int, Field(ge=0)] = 5
    limit: Annotated[Bounds, BeforeValidator(text.parse_limit), AfterValidator(text.check_limit)] = {}
    baseline: str | None = None
    max_slowdown: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.02
    loadgen: bool | None = None
    scenario: Annotated[tuple[Scenario, ...], BeforeValidator(text.parse_scenarios)] = ()
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
        named = split_commas(values.get("precision", []))
        values["precision"] = [*named, *(s for s in shorthand if s not in named)]
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
        changed["techniques"] = tuple(name for name in config.techniques if "equalization" not in name)
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
