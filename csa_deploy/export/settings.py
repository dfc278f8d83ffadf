"""Settings that one kind of network has and another has not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from csa_deploy.errors import UsageError
from csa_deploy.options import IMAGE_INPUT

if TYPE_CHECKING:
    from csa_deploy.config import Config

_OF_FILES = ("input_shape", *IMAGE_INPUT)
_OF_MODULES = ("checkpoint", "checkpoint_key")
_STATED = "a PyTorch network says so itself, in example_inputs and preprocessing; see docs/models.md"


def require_own_settings(kind: Literal["module", "ONNX file", "engine"], spec: str, config: Config) -> None:
    """Raise UsageError for a setting that would be passed over."""
    foreign = {"module": _OF_FILES, "ONNX file": _OF_MODULES, "engine": (*_OF_FILES, *_OF_MODULES)}[kind]
    given = next((key for key in foreign if getattr(config, key) not in (None, {})), None)
    if given is not None:
        flag = f"--{given.replace('_', '-')}"
        raise UsageError(
            f"{spec}: {flag} is not for {'a module' if kind == 'module' else f'an {kind}'}",
            fix=_STATED if kind == "module" else f"drop {flag}, or name the network that it was made from",
        )
