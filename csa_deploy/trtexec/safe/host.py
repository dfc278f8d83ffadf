"""This machine as the host of safety builds: its trtexec, what that can do, and which target times its kernels."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from csa_deploy.engine.device import cuda_state
from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.trtexec.safe.libraries import require_libraries
from csa_deploy.trtexec.safe.options import STATED, remote_option, require_cpu_only, why_no_consistency
from csa_deploy.trtexec.safe.plugins import SafetyPlugin
from csa_deploy.trtexec.safe.remote_config import RemoteConfig
from csa_deploy.trtexec.versions import Version, options_of_help, parse_version, version_of_help

if TYPE_CHECKING:
    from csa_deploy.trtexec.config import TargetConfig

_HELP_LIMIT_S = 120


@dataclass(frozen=True)
class Host:
    """What builds.

    Attributes:
        version: TensorRT's version, as trtexec states it.
        listed: options of its help page.
        remote: the target that times kernels.
        cpu_only: without a GPU here.
        limit_s: seconds after which a build is ended.
    """

    trtexec: str
    version: Version
    listed: frozenset[str]
    environment: Mapping[str, str]
    remote: RemoteConfig
    cpu_only: bool
    plugins: tuple[SafetyPlugin, ...]
    limit_s: float

    def to_json(self) -> dict[str, Any]:
        """What decides an engine, and where its libraries lie on the target."""
        return {"build": "host", "cpu_only": self.cpu_only, "lib_path": self.remote.lib_path}

    @property
    def checks_consistency(self) -> bool:
        """Whether a build asks NVIDIA's consistency checker."""
        return not why_no_consistency(self.version, self.listed)

    def require_ready(self) -> None:
        """Look for what a build needs before it is begun.

        Raises:
            EnvironmentLacksError: a library, named.
            UsageError: a plugin library that is not there.
        """
        require_libraries(self.environment, checker=self.checks_consistency)
        for plugin in self.plugins:
            for library in (plugin.build, plugin.run):
                if not library.is_file():
                    raise UsageError(f"safety_plugins: no such library: {library}", fix="correct its path")


def find_host(config: TargetConfig) -> Host:
    """Ask this machine's trtexec what it is.

    Raises:
        EnvironmentLacksError: no trtexec here, one that does not start, or one that needs a GPU where there is none.
        UsageError: one that cannot tune remotely.
    """
    path = str(config.host_trtexec) if config.host_trtexec else shutil.which("trtexec")
    if path is None or shutil.which(path) is None:
        raise EnvironmentLacksError(
            f"this machine: no trtexec {path or 'on PATH'}, which build: host builds with",
            fix="install the host package of the target's TensorRT, or set host_trtexec: in the target's file",
        )
    done = subprocess.run(
        [path, "--help"],
        env={**os.environ, **config.host_environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=_HELP_LIMIT_S,
    )
    page = done.stdout.decode(errors="replace")
    version = version_of_help(page)
    if version is None:
        said = " ".join(page.split())[:200] or "nothing"
        raise EnvironmentLacksError(
            f"this machine: {path} does not tell its version; it says: {said}",
            fix="check that it starts here; LD_LIBRARY_PATH can be set under host_environment: in the target's file",
        )
    return _host(config, path, version, options_of_help(page))


def stated_host(config: TargetConfig) -> Host:
    """The host as the target's file describes it; nothing is asked.

    Raises: as :func:`find_host`.
    """
    assert config.tensorrt is not None
    return _host(config, str(config.host_trtexec or "trtexec"), parse_version(config.tensorrt), STATED)


def _host(config: TargetConfig, path: str, version: Version, listed: frozenset[str]) -> Host:
    remote_option(version, listed)
    cpu_only = config.cpu_only
    if cpu_only is None:
        cpu_only = not cuda_state().devices
    if cpu_only:
        require_cpu_only(version, listed)
    return Host(
        trtexec=path,
        version=version,
        listed=listed,
        environment=config.host_environment,
        remote=config.tuned_by,
        cpu_only=cpu_only,
        plugins=config.plugins,
        limit_s=config.build_hours * 3600,
    )
