"""The stages of a deployment, in order: what each reads, needs and is decided by.

``export -> optimize (-> repair) -> check -> precision (-> split) -> build -> verify -> profile -> report``
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from csa_deploy.options import _TASK, IMAGE_INPUT, LOADGEN
from csa_deploy.records.build import BuildRecord
from csa_deploy.records.check import CheckRecord
from csa_deploy.records.export import ExportRecord
from csa_deploy.records.optimize import OptimizeRecord
from csa_deploy.records.precision import PrecisionRecord
from csa_deploy.records.profile import ProfileRecord
from csa_deploy.records.repair import RepairRecord
from csa_deploy.records.report import ReportRecord
from csa_deploy.records.split import SplitRecord
from csa_deploy.records.verify import VerifyRecord

if TYPE_CHECKING:
    from csa_deploy.config import Config
    from csa_deploy.context import Context
    from csa_deploy.results import StageRecord
    from csa_deploy.workspace import StageOutput


def _nothing(context: Context) -> None:
    """No preflight."""


def _no_parts(context: Context) -> dict[str, Any]:
    return {}


def _not_stale(context: Context) -> bool:
    return False


@dataclass(frozen=True)
class Functions:
    """What a stage does.

    Attributes:
        run: makes that and the artifacts.
        preflight: raises before any stage runs.
        key_parts: adds to the key, which holds only what decides what the stage writes.
        comparison: what decides no more than its measurements and checks; None for a stage that has none of these.
        compare_again: where that alone changed, makes the record anew; every artifact stays.
        stale: whether a result of the same key can be bettered on this machine.
    """

    run: Callable[[Context], StageOutput[StageRecord]]
    preflight: Callable[[Context], None] = _nothing
    key_parts: Callable[[Context], dict[str, Any]] = _no_parts
    comparison: Callable[[Context], dict[str, Any]] | None = None
    compare_again: Callable[[Context], StageOutput[StageRecord]] | None = None
    stale: Callable[[Context], bool] = _not_stale


@dataclass(frozen=True)
class Activity:
    """What an observer watches: a stage, or the work of a verb that has none.

    Attributes:
        name: name of the verb, and of a stage's record.
        title: what it does, for people.
    """

    name: str
    title: str


@dataclass(frozen=True)
class Stage(Activity):
    """One stage of the pipeline.

    Attributes:
        functions: loads what it does.
        result: what it states; a later stage reads it with ``workspace.read(result)``.
        settings: configuration keys that decide its result.
        also: configuration keys that its functions put into the key themselves, such as files by their content.
        needs: results that must be current before it.
        uses: results that it reads when they are there, with their artifacts.
        packages: distributions whose versions decide its result.
        when: configuration key without which the stage does not run.
    """

    functions: Callable[[], Functions]
    result: type[StageRecord]
    settings: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    needs: tuple[type[StageRecord], ...] = ()
    uses: tuple[type[StageRecord], ...] = ()
    packages: tuple[str, ...] = ()
    when: str = ""

    @property
    def inputs(self) -> list[Stage]:
        """The stages whose results it reads."""
        return [STAGES[result.stage] for result in (*self.needs, *self.uses)]


# Each imports its module where it is called: a command loads the stages that it runs.


def _export() -> Functions:
    from csa_deploy.stages import export as stage

    return Functions(stage.run, stage.preflight, stage.key_parts, stage.comparison, stage.compare_again)


def _optimize() -> Functions:
    from csa_deploy.stages import optimize as stage

    return Functions(stage.run)


def _repair() -> Functions:
    from csa_deploy.stages import repair as stage

    return Functions(stage.run, stage.preflight, stage.key_parts, stage.comparison, stage.compare_again)


def _check() -> Functions:
    from csa_deploy.stages import check as stage

    return Functions(stage.run, preflight=stage.preflight, key_parts=stage.key_parts)


def _precision() -> Functions:
    from csa_deploy.stages import precision as stage

    return Functions(stage.run, stage.preflight, stage.key_parts, stage.comparison, stage.compare_again)


def _split() -> Functions:
    from csa_deploy.stages import split as stage

    return Functions(stage.run, key_parts=stage.key_parts)


def _build() -> Functions:
    from csa_deploy.stages import build as stage

    return Functions(stage.run, preflight=stage.preflight, key_parts=stage.key_parts)


def _verify() -> Functions:
    from csa_deploy.stages import verify as stage

    return Functions(stage.run, preflight=stage.preflight, key_parts=stage.key_parts, stale=stage.stale)


def _profile() -> Functions:
    from csa_deploy.stages import profile as stage

    return Functions(stage.run, preflight=stage.preflight, key_parts=stage.key_parts)


def _report() -> Functions:
    from csa_deploy.stages import report as stage

    return Functions(stage.run)


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "export",
            "torch module to ONNX",
            _export,
            result=ExportRecord,
            settings=(
                "network",
                "checkpoint_key",
                "size",
                "batch",
                "input_shape",
                "sample",
                "state",
                *IMAGE_INPUT,
                "exporter",
            ),
            also=("checkpoint", "tensorrt", "opset", "data", "task", "seed", "export_tolerance", "state_init"),
            packages=("torch", "onnx", "onnxscript", "onnxruntime"),
        ),
        Stage(
            "optimize",
            "exact graph rewrites",
            _optimize,
            result=OptimizeRecord,
            needs=(ExportRecord,),
            packages=("onnxscript", "onnxruntime"),
        ),
        Stage(
            "repair",
            "exact repairs for scopes",
            _repair,
            result=RepairRecord,
            also=("fix", "scope", "precision"),
            needs=(OptimizeRecord,),
            packages=("onnxscript", "onnxruntime"),
            when="fix",
        ),
        Stage(
            "check",
            "restricted-mode rules",
            _check,
            result=CheckRecord,
            settings=("scope", "strict", "restricted", "max_fallback", "errata", "fail_on"),
            also=("fix",),
            needs=(ExportRecord,),
            uses=(RepairRecord,),
        ),
        Stage(
            "precision",
            "typed graphs per precision",
            _precision,
            result=PrecisionRecord,
            settings=("precision", "fp16_io", "keep_fp32"),
            also=(
                "calib",
                "calib_method",
                "calib_samples",
                "search",
                "target_dla",
                "techniques",
                "data",
                *_TASK,
                "samples",
                "seed",
                "budget",
                "fix",
                "split",
                "part",
            ),
            needs=(OptimizeRecord,),
            uses=(RepairRecord,),
        ),
        Stage(
            "split",
            "encoder and heads",
            _split,
            result=SplitRecord,
            settings=("split", "part", "scope", "max_fallback", "builder_option", "restricted", "strict"),
            also=("tensorrt", "target", "fix"),
            needs=(OptimizeRecord, PrecisionRecord),
            uses=(RepairRecord,),
            when="split",
        ),
        Stage(
            "build",
            "TensorRT engines",
            _build,
            result=BuildRecord,
            settings=(
                *("precision", "restricted", "scope", "strict", "max_fallback", "backend", "compute_capability"),
                *("target", "builder_option", "timing_cache", "builds", "reproducible", "min_share"),
            ),
            needs=(OptimizeRecord, PrecisionRecord),
            packages=("tensorrt", "tensorrt-rtx", "polygraphy"),
        ),
        Stage(
            "verify",
            "accuracy against PyTorch",
            _verify,
            result=VerifyRecord,
            settings=(
                *("precision", "data", "task", "samples", "seed", "budget", "strict", "threads", "provider"),
                "checkpoint_key",
            ),
            also=("decode", "score_threshold", "nms_iou", "metric", "int8_arithmetic"),
            needs=(ExportRecord, OptimizeRecord, PrecisionRecord),
            uses=(SplitRecord, BuildRecord),
            packages=("torch", "onnxruntime", "onnxruntime-gpu"),
        ),
        Stage(
            "profile",
            "latency",
            _profile,
            result=ProfileRecord,
            settings=(
                *("iterations", "seconds", "warmup", "threads", "precision", "seed"),
                *("limit", "baseline", "max_slowdown", *LOADGEN),
            ),
            also=("data", "samples"),
            needs=(ExportRecord, OptimizeRecord, PrecisionRecord),
            uses=(SplitRecord, BuildRecord),
            packages=("onnxruntime",),
        ),
        Stage(
            "report",
            "report",
            _report,
            result=ReportRecord,
            uses=(
                ExportRecord,
                OptimizeRecord,
                RepairRecord,
                CheckRecord,
                PrecisionRecord,
                SplitRecord,
                BuildRecord,
                VerifyRecord,
                ProfileRecord,
            ),
        ),
    )
}
# A failed comparison or measurement is a result that belongs in the report; the other failures end the run.
CONTINUE_AFTER_FAILURE = ("verify", "profile")


def with_needs(names: Sequence[str], config: Config | None = None) -> list[Stage]:
    """The named stages and everything they need, in pipeline order; those that run on demand only where asked for."""
    wanted: set[str] = set()

    def add(name: str) -> None:
        if not wants(STAGES[name], config):
            return
        wanted.add(name)
        for need in STAGES[name].needs:
            add(need.stage)
        for used in STAGES[name].uses if name != "report" else ():
            if STAGES[used.stage].when:
                add(used.stage)

    for name in names:
        add(name)
    return [stage for stage in STAGES.values() if stage.name in wanted]


def wants(stage: Stage, config: Config | None) -> bool:
    """Whether a configuration wants a stage; those without a condition always."""
    return not stage.when or (config is not None and bool(getattr(config, stage.when)))


def dependents(name: str) -> set[str]:
    """Stages whose result rests on the named stage, directly or through others."""
    found: set[str] = set()
    for stage in STAGES.values():  # pipeline order: a dependent comes after what it depends on
        if ({name} | found) & {read.name for read in stage.inputs}:
            found.add(stage.name)
    return found
