"""What only a build by trtexec can be asked for. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from csa_deploy.errors import UsageError
from csa_deploy.trtexec.versions import Version

_POOLS = ("workspace", "dlaSRAM", "dlaLocalDRAM", "dlaGlobalDRAM")


def _flag(flag: str, default: Any) -> Any:
    """An attribute that is a flag of trtexec: alone when True, else with its value; in the order of the command."""
    return field(default=default, metadata={"flag": flag})


@dataclass(frozen=True)
class TrtexecOptions:
    """What only a build by trtexec can be asked for.

    A flag is an attribute here and a row of :data:`csa_deploy.trtexec.versions.VERSION_OPTIONS`.

    Attributes:
        dla_core: build for this DLA core.
        gpu_fallback: let the GPU run what DLA cannot.
        dla_standalone: a DLA loadable without any GPU part.
        safe: build the safety engine itself (DRIVE OS with the safety runtime).
        consistency: ask NVIDIA's consistency checker about a safety engine that the target builds.
        input_formats: trtexec's I/O formats of all inputs (``fp16:chw16``; from 11.0 ``chw16``).
        sparsity: ``"disable"``, ``"enable"`` or ``"force"``; None leaves it to trtexec.
        hardware_compatibility: ``"ampere+"`` and the like; None: this GPU only.
        version_compatible: loadable by later TensorRT versions.
        strip_weights: an engine without weights, to be refitted.
        refit: an engine whose weights can be replaced.
        memory_pools: limits in MiB by trtexec's pool names (``dlaSRAM``), beside the plan's workspace.
        calibration_cache: TensorRT's calibration cache, for implicit INT8 (up to 10.16).
    """

    dla_core: int | None = _flag("--useDLACore", None)
    gpu_fallback: bool = _flag("--allowGPUFallback", False)
    dla_standalone: bool = _flag("--buildDLAStandalone", False)
    safe: bool = _flag("--safe", False)
    consistency: bool = _flag("--consistency", False)
    input_formats: str | None = _flag("--inputIOFormats", None)
    output_formats: str | None = _flag("--outputIOFormats", None)
    sparsity: str | None = _flag("--sparsity", None)
    hardware_compatibility: str | None = _flag("--hardwareCompatibilityLevel", None)
    version_compatible: bool = _flag("--versionCompatible", False)
    strip_weights: bool = _flag("--stripWeights", False)
    refit: bool = _flag("--refit", False)
    memory_pools: Mapping[str, int] = field(default_factory=dict)
    calibration_cache: Path | None = None

    def __post_init__(self) -> None:
        if self.sparsity not in (None, "disable", "enable", "force"):
            raise UsageError(f"unknown sparsity {self.sparsity!r}", fix="use disable, enable or force")
        if unknown := [name for name in self.memory_pools if name not in _POOLS]:
            raise UsageError(
                f"memory_pools.{unknown[0]} cannot be set",
                fix=f"use {', '.join(_POOLS)}, in MiB (tacticSharedMem is tens of KiB and is left to TensorRT)",
            )
        if self.consistency and (not self.safe or self.loadable):
            raise UsageError("the consistency check is of safety engines", fix="add safe=true, without dla_core")
        if self.dla_core is None and (self.gpu_fallback or self.dla_standalone):
            raise UsageError("GPU fallback and DLA standalone need a DLA core", fix="add dla_core=0")
        if self.gpu_fallback and self.loadable:
            raise UsageError("a DLA loadable has no GPU part to fall back to", fix="drop gpu_fallback")
        if self.loadable and not (self.input_formats and self.output_formats):
            raise UsageError(
                "a DLA loadable needs the formats of its inputs and outputs",
                fix="add input_formats=fp16:chw16 and output_formats=fp16:chw16 (or int8:chw32; from 11 no type)",
            )

    def flags(self, *names: str) -> Iterator[tuple[str, Any]]:
        """Flags that were asked for and their values (None: it has none); of these attributes only, where named."""
        for item in fields(self):
            value = getattr(self, item.name)
            unset = value is None or value is False or value == ""  # a DLA core may be 0
            if "flag" in item.metadata and not unset and (not names or item.name in names):
                yield item.metadata["flag"], None if value is True else value

    @property
    def loadable(self) -> bool:
        """Whether the build is a DLA loadable: trtexec takes ``--safe`` with a DLA core for one as well."""
        return self.dla_core is not None and (self.dla_standalone or self.safe)

    @property
    def inspectable(self) -> bool:
        """Whether trtexec can tell the engine's layers: of no loadable (8.6 crashes on it) and no safe engine."""
        return not (self.loadable or self.safe)

    def weakly_typed(self, version: Version) -> bool:
        """Whether TensorRT makes the precision itself, of an FP32 graph and by flags.

        8.6 always; 10 for DLA, whose builds set the FP16 flag that a strongly typed network refuses, and for a
        calibration cache.
        """
        asked = self.dla_core is not None or self.calibration_cache is not None
        return not version.strongly_typed or (version.weakly_typed and asked)

    def to_json(self) -> dict[str, Any]:
        """JSON form; the cache by its name."""
        cache = self.calibration_cache.name if self.calibration_cache else None
        stated = {**asdict(self), "memory_pools": dict(self.memory_pools), "calibration_cache": cache}
        return stated if self.consistency else {k: v for k, v in stated.items() if k != "consistency"}


def parse_options(items: Sequence[str]) -> TrtexecOptions:
    """``["dla_core=0", "gpu_fallback", "memory_pools.dlaSRAM=1"]`` to options; names are the attributes'.

    Raises:
        UsageError: an unknown name or a value that does not fit, named.
    """
    known = {item.name: item for item in fields(TrtexecOptions)}
    values: dict[str, Any] = {}
    pools: dict[str, int] = {}
    for item in items:
        key, _, value = item.partition("=")
        name, _, pool = key.strip().replace("-", "_").partition(".")
        if name not in known or (name == "memory_pools") != bool(pool):
            raise UsageError(
                f"unknown builder option '{key}'", fix=f"use one of {', '.join(known)} (memory_pools.NAME=MIB)"
            )
        if pool:
            pools[pool] = _number(key, value)
        elif known[name].type == "bool":
            values[name] = _truth(key, value)
        elif known[name].type == "int | None":
            values[name] = _number(key, value)
        else:
            values[name] = Path(value) if name == "calibration_cache" else value
    return TrtexecOptions(**values, memory_pools=pools)


def _number(key: str, value: str) -> int:
    if not value.isdigit():
        raise UsageError(f"builder option {key}={value} is no whole number", fix=f"write {key}=1")
    return int(value)


def _truth(key: str, value: str) -> bool:
    if value not in ("", "true", "false"):
        raise UsageError(f"builder option {key} is true or false, not {value}", fix=f"write {key}=true")
    return value != "false"
