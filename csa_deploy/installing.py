"""What is installed, and how this installation is extended: the way it was itself installed, as no index has it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from urllib.parse import urlparse

from csa_deploy.errors import EnvironmentLacksError

NAME = "csa-deploy"


@lru_cache
def install_command(extra: str) -> str:
    """The pip command that adds an extra of this package to this installation."""
    try:
        said = metadata.distribution(NAME).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        said = None
    return command_for(said, extra)


def installed(module: str) -> bool:
    """Whether a module can be imported, without importing it; a folder of type stubs alone is none."""
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None


def require_torch(spec: str) -> None:
    """Refuse a network that is code where PyTorch is not installed; all that an ONNX file needs runs without it.

    Raises:
        EnvironmentLacksError: PyTorch is not installed; says how to add it.
    """
    if not installed("torch"):
        raise EnvironmentLacksError(
            f"{spec}: PyTorch is not installed, and only ONNX files are deployed without it",
            fix=install_command("torch"),
        )


def sources() -> Path | None:
    """The folder of this package's sources, where it was installed from one (PEP 610); else None."""
    try:
        said = metadata.distribution(NAME).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    url = str(json.loads(said).get("url", "")) if said else ""
    folder = Path(_path_of(url)) if url.startswith("file:") else None
    return folder if folder and folder.is_dir() else None


def _path_of(url: str) -> str:
    from urllib.request import url2pathname  # loads OpenSSL

    return url2pathname(urlparse(url).path)


def command_for(direct_url: str | None, extra: str) -> str:
    """The command for an installation, by its ``direct_url.json`` (PEP 610; None where it came from an index)."""
    origin = json.loads(direct_url) if direct_url else {}
    url = str(origin.get("url", ""))
    if "vcs_info" in origin:
        return f"pip install '{NAME}[{extra}] @ {origin['vcs_info']['vcs']}+{url}'"
    if url.startswith("file:"):
        editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
        return f"pip install {editable}'{_path_of(url)}[{extra}]'"
    return f"pip install '{NAME}[{extra}]'"


def version_of(distribution: str) -> str | None:
    """Its installed version; None where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """The same of several."""
    return {package: version_of(package) for package in packages}
