"""The stages of a deployment, in order: what each reads, needs and is decided by.

``export -> optimize (-> repair) -> check -> precision -> build -> verify -> profile -> report``
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from csa_deploy.config import Config

from csa_deploy.options import IMAGE_INPUT


@dataclass(frozen=True)
class Stage:
    """One stage of the pipeline.

    Attributes:
        name: name of the stage, its record and its verb.
        settings: configuration keys that decide its result.
        also: configuration keys that its module reads and puts into the key itself, such as files by their content.
        needs: stages that must be current before it.
        uses: stages whose artifacts it reads when they are there.
        packages: distributions whose versions decide its result.
        when: configuration key without which the stage does not run.
        title: what it does, for people.
    """

    name: str
    title: str
    settings: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    when: str = ""

    @property
    def module(self) -> str:
        """Module with ``run(context) -> StageOutput``, and optionally more functions.

        ``key_parts(context) -> dict`` adds to the key, which holds only what decides what the stage writes.
        ``comparison(context) -> dict`` is what decides no more than its measurements and checks: where that alone
        changed, ``compare_again(context) -> StageOutput`` makes the record anew and every artifact stays.
        ``preflight(context)`` raises before any stage runs; ``stale(context) -> bool`` says that a result of the same
        key can be bettered on this machine.
        """
        return f"csa_deploy.stages.{self.name}"


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "export",
            "torch module to ONNX",
            settings=("network", "checkpoint_key", "size", "batch", "input_shape", *IMAGE_INPUT, "exporter"),
            also=("checkpoint", "tensorrt", "opset", "data", "seed", "export_tolerance"),
            packages=("torch", "onnx", "onnxscript", "onnxruntime"),
        ),
        Stage("optimize", "exact graph rewrites", needs=("export",), packages=("onnxscript", "onnxruntime")),
        Stage(
            "repair",
            "exact repairs for scopes",
            also=("fix", "scope", "precision"),
            needs=("optimize",),
            packages=("onnxscript", "onnxruntime"),
            when="fix",
        ),
        Stage(
            "check",
            "restricted-mode rules",
            settings=("scope", "strict", "restricted", "max_fallback"),
            also=("fix",),
            needs=("export",),
            uses=("repair",),
        ),
        Stage(
            "precision",
            "typed graphs per precision",
            settings=("precision", "fp16_io", "keep_fp32"),
            also=(
                "calib",
                "calib_method",
                "calib_samples",
                "search",
                "techniques",
                "data",
                "samples",
                "seed",
                "metric",
                "budget",
                "fix",
            ),
            needs=("optimize",),
            uses=("repair",),
        ),
        Stage(
            "build",
            "TensorRT engines",
            settings=(
                *("precision", "restricted", "scope", "strict", "max_fallback", "backend", "compute_capability"),
                *("target", "builder_option", "timing_cache", "builds", "reproducible"),
            ),
            needs=("optimize", "precision"),
            packages=("tensorrt", "tensorrt-rtx", "polygraphy"),
        ),
        Stage(
            "verify",
            "accuracy against PyTorch",
            settings=(
                *("precision", "data", "samples", "seed", "budget", "strict", "threads", "provider", "checkpoint_key"),
            ),
            also=("metric",),
            needs=("export", "optimize", "precision"),
            uses=("build",),
            packages=("torch", "onnxruntime", "onnxruntime-gpu"),
        ),
        Stage(
            "profile",
            "latency",
            settings=(
                *("iterations", "seconds", "warmup", "threads", "precision", "seed"),
                *("limit", "baseline", "max_slowdown"),
            ),
            needs=("export", "optimize", "precision"),
            uses=("build",),
            packages=("onnxruntime",),
        ),
        Stage(
            "report",
            "report",
            uses=("export", "optimize", "repair", "check", "precision", "build", "verify", "profile"),
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
            add(need)
        for used in STAGES[name].uses if name != "report" else ():
            if STAGES[used].when:
                add(used)

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
        if ({name} | found) & {*stage.needs, *stage.uses}:
            found.add(stage.name)
    return found
