"""TensorRT-RTX: builds ahead of time for the GPUs asked for, without a GPU or driver on this machine."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from csa_deploy.engine.backend import common_options, version_pair
from csa_deploy.engine.device import cuda_state
from csa_deploy.engine.plan import CURRENT, BuildPlan
from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.installing import install_command, installed

if TYPE_CHECKING:
    import tensorrt  # its configuration is TensorRT's

_MEMBER = re.compile(r"SM(\d+)(\d)")  # ComputeCapability.SM86, .SM120
FIRST_DEFAULT = (8, 0)  # no car has a Turing (7.5), whose part of an engine is larger than all the others
_FIRST_IGNORING = (1, 5)  # from 1.5 on SAFETY_SCOPE is accepted and ignored; 1.4 still checks


class TensorRTRTX:
    """See :class:`csa_deploy.engine.backend.Backend`."""

    name: Literal["tensorrt", "tensorrt-rtx"] = "tensorrt-rtx"
    module = "tensorrt_rtx"
    title = "TensorRT-RTX"
    install = install_command("rtx")
    restricted_evidence = "validator"

    def missing(self) -> str:
        """Why it cannot build; empty when it can."""
        return "" if installed(self.module) else "not installed"

    def restricted_acts(self, version: str) -> bool:
        """Only before 1.5."""
        return version_pair(version) < _FIRST_IGNORING

    def capabilities(self, trt: Any, plan: BuildPlan) -> tuple[str, ...]:
        """Those asked for, or all that this version knows but Turing, unless a GPU of this machine is one."""
        members = [_MEMBER.fullmatch(name) for name in trt.ComputeCapability.__members__]
        known = tuple(f"{match[1]}.{match[2]}" for match in members if match)
        if plan.compute_capabilities == (CURRENT,):
            if not cuda_state().devices:
                raise EnvironmentLacksError(
                    f"compute capability 'current': {cuda_state().reason}", fix=f"name it, one of {', '.join(known)}"
                )
            return (CURRENT,)
        for capability in plan.compute_capabilities:
            if capability not in known:
                raise UsageError(
                    f"{self.title} {trt.__version__} does not build for compute capability {capability}",
                    fix=f"use {', '.join(known)} or {CURRENT}",
                )
        here = [device.compute_capability for device in cuda_state().devices]
        usual = [item for item in known if version_pair(item) >= FIRST_DEFAULT or item in here]
        return plan.compute_capabilities or tuple(sorted(usual, key=version_pair))

    def config_loader(self, trt: Any, plan: BuildPlan, capabilities: tuple[str, ...], monitor: Any) -> Any:
        """Polygraphy's RTX configuration, with TF32 off."""
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX
        from polygraphy.backend.trt import PostprocessConfig

        current = capabilities == (CURRENT,)
        config = CreateConfigRTX(
            use_gpu=current,
            compute_capabilities=None if current else [version_pair(item) for item in capabilities],
            **common_options(trt, plan, monitor),
        )

        def without_tf32(builder: Any, network: Any, made: tensorrt.IBuilderConfig) -> None:
            made.clear_flag(trt.BuilderFlag.TF32)

        # TF32 is the builder's default; unlike CreateConfig, CreateConfigRTX leaves it on.
        return PostprocessConfig(config, without_tf32)
