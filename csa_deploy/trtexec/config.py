"""The file that describes a target; every key is checked, unknown ones are refused by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, field_validator

from csa_deploy.errors import UsageError
from csa_deploy.naming import unknown
from csa_deploy.trtexec.safe.keys import HostBuildKeys, check_keys
from csa_deploy.trtexec.safe.remote_config import RemoteConfig
from csa_deploy.trtexec.safe.secrets import masked, masked_value
from csa_deploy.validation import invalid, read_mapping

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:%-]*")  # never a leading dash: ssh would take it for an option
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PATHS = ("ssh_config", "host_trtexec")  # of this machine, relative to the target's file


class TargetConfig(HostBuildKeys):
    """A machine to build for and to run engines on; its keys about building on a host are those of the base.

    Attributes:
        host: name or address, or an alias of the user's ssh configuration.
        user: login name; default: ssh's.
        port: ssh port; default: ssh's.
        jump: host to go through (``user@host:port``).
        ssh_config: ssh configuration file to use instead of the user's.
        workdir: directory on the target for files in the making; made when missing.
        platform: what it is, for the reader and for the report.
        tensorrt: version that is expected; another one found on the target is refused.
        trtexec: path of trtexec; default: PATH, then where NVIDIA's packages put it. With ``build: host`` the one that
            runs safety engines through the proxy runtime.
        power_mode: power mode that is expected (``nvpmodel -q``); another one is refused.
        environment: variables for trtexec, such as LD_LIBRARY_PATH.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    user: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    jump: str | None = None
    ssh_config: Path | None = None
    workdir: str = "/tmp/csa-deploy"  # noqa: S108 - on the target, where /tmp is often the one writable place
    platform: Literal["drive-orin", "drive-thor", "jetson-orin", "jetson-xavier", "workstation", "other"] = "other"
    tensorrt: str | None = None
    trtexec: str | None = None
    power_mode: str | None = None
    environment: dict[str, str] = Field(default={})

    @field_validator("tensorrt", "power_mode", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        if isinstance(value, float) and value >= 10:
            raise ValueError("put it in quotes: YAML reads 10.10 as the number 10.1")
        return str(value) if isinstance(value, (int, float)) else value  # 8.6 is a number to YAML as well

    @field_validator("host")
    @classmethod
    def _is_host(cls, value: str) -> str:
        if not _HOST.fullmatch(value):
            raise ValueError("not a host name or address")
        return value

    @field_validator("jump")
    @classmethod
    def _is_jump(cls, value: str | None) -> str | None:
        if value is not None and not all(_HOST.fullmatch(part) for part in re.split("[,@]", value)):
            raise ValueError("not [user@]host[:port]")
        return value

    @field_validator("user")
    @classmethod
    def _is_user(cls, value: str | None) -> str | None:
        if value is not None and not _USER.fullmatch(value):
            raise ValueError("not a login name")
        return value

    @field_validator("workdir")
    @classmethod
    def _is_absolute(cls, value: str) -> str:
        if not value.startswith("/") or value.strip("/") == "" or not value.isprintable():
            raise ValueError("not an absolute path below /")
        return value.rstrip("/")

    @field_validator("environment", "host_environment")
    @classmethod
    def _are_names(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not _NAME.fullmatch(name):
                raise ValueError(f"'{name}' is no name of an environment variable")
        return value

    @property
    def name(self) -> str:
        """How reports call it."""
        return f"{self.user}@{self.host}" if self.user else self.host

    @property
    def tuned_by(self) -> RemoteConfig:
        """How TensorRT on a host reaches it."""
        return self.remote(self.user, self.host, self.port)

    def to_json(self) -> dict[str, Any]:
        """What decides a build on it; not how it is reached."""
        kept = {"platform", "tensorrt", "trtexec", "power_mode", "environment"}
        return self.model_dump(mode="json", include=kept)


def load_target(path: Path) -> TargetConfig:
    """Read a target's file.

    Raises:
        UsageError: missing, no YAML, an unknown key or a value that is not valid, named.
    """
    start = "write lines such as 'host: orin.local'"
    data = read_mapping(path, "target", example=start, missing="give its YAML file", shown=masked)
    known = list(TargetConfig.model_fields)
    for key in data:
        if key not in known:
            raise UsageError(f"{path}: {unknown('key', key, known)}", fix=f"known: {', '.join(known)}")
    try:
        config = TargetConfig(**data)
    except ValidationError as error:
        raise invalid(error, str(path), shown=masked_value) from None
    try:
        check_keys(config, data, config.user, config.host, config.port)
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", fix=error.fix) from None
    beside = {key: path.parent / value for key in _PATHS if (value := getattr(config, key)) is not None}
    return config.model_copy(update=beside)  # an absolute path stays what it is
