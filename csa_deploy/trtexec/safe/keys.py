"""The keys of a target's file that say how a host builds safety engines for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from csa_deploy.errors import UsageError
from csa_deploy.trtexec.safe.plugins import SafetyPlugin, parse_plugin
from csa_deploy.trtexec.safe.remote_config import PROMPT, RemoteConfig, parse_remote_config


class HostBuildKeys(BaseModel):
    """How a host builds for a target; none of it counts with ``build: target``.

    Attributes:
        build: ``target``: its own trtexec builds there; ``host``: this machine builds a safety engine, and the target
            only times kernels (TensorRT from 10.13, DRIVE).
        host_trtexec: trtexec on this machine, of the target's TensorRT version; default: PATH.
        host_environment: variables for it, such as LD_LIBRARY_PATH.
        cpu_only: build without a GPU here (from 10.15); default: where this machine has none.
        remote_config: the whole text for TensorRT's remote tuning, in place of the next three.
        remote_exec_path: directory on the target of NVIDIA's remote tuning program.
        remote_lib_path: directory of its libraries there.
        remote_password: ``PROMPT`` to be asked at the terminal; default: key or agent.
        trtexec_safe: path of trtexec_safe on the target; without it, engines run with the target's trtexec.
        safety_plugins: plugin libraries, ``{build: LIBRARY[NS::NAME], run: LIBRARY[NS::NAME]}`` each.
        build_hours: hours after which a build is ended; trtexec itself has no limit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    build: Literal["target", "host"] = "target"
    host_trtexec: Path | None = None
    host_environment: dict[str, str] = {}
    cpu_only: bool | None = None
    remote_config: str | None = None
    remote_exec_path: str | None = None
    remote_lib_path: str | None = None
    remote_password: str | None = None
    trtexec_safe: str | None = None
    safety_plugins: tuple[dict[str, str], ...] = ()
    build_hours: Annotated[float, Field(gt=0)] = 12

    def remote(self, user: str | None, host: str, port: int | None) -> RemoteConfig:
        """How TensorRT reaches the target, which is how ssh reaches it where nothing else is said.

        Raises:
            UsageError: a key is missing, holds a password, or a character that TensorRT cannot be given.
        """
        if self.remote_config is not None:
            return parse_remote_config(self.remote_config)
        if self.remote_password not in (None, PROMPT):
            raise UsageError(
                "remote_password: a password in a file is not taken",
                fix=f"log in by a key or an agent, or write {PROMPT} to be asked at the terminal",
            )
        needed = {
            "user": user,
            "remote_exec_path": self.remote_exec_path,
            "remote_lib_path": self.remote_lib_path,
        }
        if missing := [name for name, value in needed.items() if not value]:
            raise UsageError(
                f"build: host needs {missing[0]}: TensorRT's own ssh reads no ssh configuration",
                fix=f"add {missing[0]}: to the target's file",
            )
        assert user and self.remote_exec_path and self.remote_lib_path
        return RemoteConfig(
            user, host, self.remote_exec_path, self.remote_lib_path, port or 22, self.remote_password is not None
        )

    @property
    def plugins(self) -> tuple[SafetyPlugin, ...]:
        """The plugin libraries; raises UsageError for one that is not written as trtexec takes it."""
        return tuple(parse_plugin(item) for item in self.safety_plugins)


OF_HOST_BUILDS: tuple[str, ...] = tuple(name for name in HostBuildKeys.model_fields if name not in ("build",))


def check_keys(keys: HostBuildKeys, given: dict[Any, Any], user: str | None, host: str, port: int | None) -> None:
    """Refuse keys that do not go together.

    Raises:
        UsageError: named.
    """
    if keys.build == "host":
        keys.remote(user, host, port)
        _ = keys.plugins
        if keys.remote_config is not None and (both := [k for k in given if str(k).startswith("remote_")][1:]):
            raise UsageError(f"remote_config and {both[0]} say the same", fix="keep one of them")
        return
    if unused := [str(key) for key in given if key in OF_HOST_BUILDS and key != "trtexec_safe"]:
        raise UsageError(f"{unused[0]} counts with build: host only", fix="add build: host, or leave it out")
