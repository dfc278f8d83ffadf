"""The engine builders that are Python packages, and the choice between them."""

from __future__ import annotations

from csa_deploy.engine.backend import Backend
from csa_deploy.engine.plan import BackendChoice
from csa_deploy.engine.tensorrt import TensorRT
from csa_deploy.engine.tensorrt_rtx import TensorRTRTX
from csa_deploy.errors import EnvironmentLacksError

PYTHON_BACKENDS: tuple[Backend, ...] = (TensorRT(), TensorRTRTX())
"""In the order of preference: the target's own builder first."""


def choose_backend(choice: BackendChoice) -> Backend:
    """The builder to use.

    Raises:
        EnvironmentLacksError: the one asked for (or, for ``"auto"``, either) cannot build here.
    """
    asked = [backend for backend in PYTHON_BACKENDS if choice in ("auto", backend.name)]
    for backend in asked:
        if not backend.missing():
            return backend
    reasons = "; ".join(f"{backend.title}: {backend.missing()}" for backend in asked)
    raise EnvironmentLacksError(f"no engine builder can run here ({reasons})", fix=asked[-1].install)
