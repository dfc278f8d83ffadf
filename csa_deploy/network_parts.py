"""What each part of a split network is for, as a user writes it: ``heads=int8@dla0``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from csa_deploy.errors import UsageError
from csa_deploy.naming import named_values, split_commas

ENCODER, HEADS = "encoder", "heads"
"""The part in front of the cut, and all those behind it together."""

_SETTING = re.compile(r"(fp32|fp16|int8)(?:@(gpu|dla0|dla1))?")


@dataclass(frozen=True)
class PartSetting:
    """Precision and target of one part.

    Attributes:
        precision: fp32, fp16 or int8.
        target: gpu, dla0 or dla1.
    """

    precision: str = "fp16"
    target: str = "gpu"

    @property
    def dla_core(self) -> int | None:
        """Number of the DLA core; None for the GPU."""
        return None if self.target == "gpu" else int(self.target.removeprefix("dla"))

    def __str__(self) -> str:
        return f"{self.precision}@{self.target}"


def parse_part(value: Any) -> Any:
    """``["heads=int8@dla0"]`` or a mapping to {part: precision@target}; without a target it is the GPU."""
    if isinstance(value, str | list | tuple):
        value = named_values([str(item) for item in split_commas(value)], "part", "NAME=PRECISION@TARGET")
    if not isinstance(value, Mapping):
        return value
    return {str(name).strip(): str(_setting(str(name), str(said).strip())) for name, said in value.items()}


def _setting(name: str, said: str) -> PartSetting:
    found = _SETTING.fullmatch(said.lower())
    if not found or not name:
        raise ValueError(
            f"'{name}={said}' is not NAME=PRECISION@TARGET, such as heads=int8@dla0: PRECISION is fp32, fp16 or int8, "
            "TARGET gpu, dla0 or dla1"
        )
    setting = PartSetting(found[1], found[2] or "gpu")
    if setting.dla_core is not None and setting.precision == "fp32":
        raise ValueError(f"'{name}={said}': DLA computes in FP16 or INT8")
    return setting


def groups_of(part: Mapping[str, str]) -> list[list[str]]:
    """Outputs that parts are named by, each group one part."""
    return [name.split("+") for name in part if name not in (ENCODER, HEADS)]


def setting_of(part: Mapping[str, str], name: str, outputs: Sequence[str]) -> PartSetting:
    """The setting of a part: its own, by its name or by outputs that it makes, else that of all heads, else FP16."""
    own = {k: said for k, said in part.items() if k == name or (name != ENCODER and {*k.split("+")} <= {*outputs})}
    if len({*own.values()}) > 1:
        raise UsageError(f"'{name}' is one part, and is to be {' and '.join(own.values())}", fix="name it once")
    said = next(iter(own.values()), part.get(HEADS, "") if name != ENCODER else "")
    return PartSetting(*said.split("@")) if said else PartSetting()
