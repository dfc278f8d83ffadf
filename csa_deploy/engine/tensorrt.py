"""TensorRT 10 and later: builds for this machine's GPU, strongly typed."""

from __future__ import annotations

import os
from typing import Any, Literal

from csa_deploy.engine.backend import common_options, version_pair
from csa_deploy.engine.device import cuda_state
from csa_deploy.engine.plan import CURRENT, BuildPlan
from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.installing import install_command, installed
from csa_deploy.levels import flag_acts

_FIRST_STRONGLY_TYPED = (10, 0)


class TensorRT:
    """See :class:`csa_deploy.engine.backend.Backend`."""

    name: Literal["tensorrt", "tensorrt-rtx"] = "tensorrt"
    module = "tensorrt"
    title = "TensorRT"
    install = install_command("tensorrt")
    restricted_evidence = "restricted-build"

    def missing(self) -> str:
        """Why it cannot build; empty when it can."""
        if not installed(self.module):
            return "not installed"
        return cuda_state().reason

    def restricted_acts(self, version: str) -> bool:
        """Only before 10.16."""
        return flag_acts(version_pair(version), on_drive=False)

    def capabilities(self, trt: Any, plan: BuildPlan) -> tuple[str, ...]:
        """This machine's, the only one that TensorRT builds for."""
        if version_pair(trt.__version__) < _FIRST_STRONGLY_TYPED:
            raise EnvironmentLacksError(
                f"TensorRT {trt.__version__} has no strongly typed networks", fix="install TensorRT 10 or later"
            )
        here = cuda_state().devices[0].compute_capability
        if set(plan.compute_capabilities) - {here, CURRENT}:
            asked = ", ".join(plan.compute_capabilities)
            raise UsageError(
                f"TensorRT builds for this machine's compute capability {here} only, {asked} was asked for",
                fix="use the tensorrt-rtx backend, or build on the target",
            )
        return (here,)

    def config_loader(self, trt: Any, plan: BuildPlan, capabilities: tuple[str, ...], monitor: Any) -> Any:
        """Polygraphy's configuration, which turns TF32 off."""
        from polygraphy.backend.trt import CreateConfig

        cache = None if plan.timing_cache is None else os.fspath(plan.timing_cache)
        return CreateConfig(load_timing_cache=cache, **common_options(trt, plan, monitor))
