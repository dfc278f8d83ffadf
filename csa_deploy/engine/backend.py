"""The small interface of an engine builder, and what both have in common."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from csa_deploy.engine.plan import BuildPlan


class Backend(Protocol):
    """One builder.

    Attributes:
        name: as in :class:`csa_deploy.engine.plan.BuildPlan`.
        restricted_evidence: level of evidence of a build on which the safety-scope flag acts.
    """

    name: Literal["tensorrt", "tensorrt-rtx"]
    module: str
    title: str
    install: str
    restricted_evidence: str

    def missing(self) -> str:
        """Why this machine cannot build with it; empty when it can. Imports nothing heavy."""

    def restricted_acts(self, version: str) -> bool:
        """Whether this version checks anything when the safety-scope flag is set."""

    def capabilities(self, trt: Any, plan: BuildPlan) -> tuple[str, ...]:
        """Compute capabilities to build for. Raises UsageError for one that this version does not know."""

    def config_loader(self, trt: Any, plan: BuildPlan, capabilities: tuple[str, ...], monitor: Any) -> Any:
        """Polygraphy loader of the builder configuration (called with builder and network)."""


def version_pair(version: str) -> tuple[int, int]:
    """Major and minor of a version (``"10.15.1.29"`` -> ``(10, 15)``)."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def common_options(trt: Any, plan: BuildPlan, monitor: Any) -> dict[str, Any]:
    """Options of polygraphy's configuration that both builders share."""
    pools = None if plan.workspace_mib is None else {trt.MemoryPoolType.WORKSPACE: plan.workspace_mib << 20}
    return {
        "restricted": plan.restricted and hasattr(trt.BuilderFlag, "SAFETY_SCOPE"),
        "profiling_verbosity": trt.ProfilingVerbosity.DETAILED,
        "memory_pool_limits": pools,
        "builder_optimization_level": plan.optimization_level,
        "progress_monitor": monitor,
    }
