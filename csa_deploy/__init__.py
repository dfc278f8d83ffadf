"""csa-deploy: from a PyTorch vision network to verified TensorRT engines, with evidence for each claim.

The names of ``__all__`` are the Python API, documented in docs/api.md; everything else may change. They are loaded when
they are first used, so importing the package costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from csa_deploy.api.graphs import check, optimize, prove, repair, to_fp16
    from csa_deploy.api.measured import Comparison, Timing
    from csa_deploy.api.measuring import compare, profile, report
    from csa_deploy.api.results import Built, CheckReport, Exported, Half, Optimized, Quantized, Repaired, SplitNetwork
    from csa_deploy.api.splitting import split
    from csa_deploy.api.stages import build, export, quantize
    from csa_deploy.graph.prove import Proven
    from csa_deploy.workspace import Workspace

_WHERE = {
    **dict.fromkeys(("check", "optimize", "prove", "repair", "to_fp16"), "csa_deploy.api.graphs"),
    **dict.fromkeys(("build", "export", "quantize"), "csa_deploy.api.stages"),
    **dict.fromkeys(("compare", "profile", "report"), "csa_deploy.api.measuring"),
    **dict.fromkeys(("Built", "CheckReport", "Exported", "Half"), "csa_deploy.api.results"),
    **dict.fromkeys(("Optimized", "Quantized", "Repaired", "SplitNetwork"), "csa_deploy.api.results"),
    **dict.fromkeys(("Comparison", "Timing"), "csa_deploy.api.measured"),
    "Proven": "csa_deploy.graph.prove",
    "split": "csa_deploy.api.splitting",
    "Workspace": "csa_deploy.workspace",
}

__all__ = [
    "Built",
    "CheckReport",
    "Comparison",
    "Exported",
    "Half",
    "Optimized",
    "Proven",
    "Quantized",
    "Repaired",
    "SplitNetwork",
    "Timing",
    "Workspace",
    "__version__",
    "build",
    "check",
    "compare",
    "export",
    "optimize",
    "profile",
    "prove",
    "quantize",
    "repair",
    "report",
    "split",
    "to_fp16",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'csa_deploy' has no attribute '{name}'")
    value = getattr(import_module(_WHERE[name]), name)
    setattr(sys.modules[__name__], name, value)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """The package itself: ``csa_deploy.export`` stays the function when the sub-package of that name is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _WHERE and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
