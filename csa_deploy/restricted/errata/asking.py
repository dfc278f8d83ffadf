"""What a configuration asks the errata: version, platform and precisions of the engines that it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csa_deploy.errors import OperationRejectedError
from csa_deploy.installing import versions
from csa_deploy.restricted.errata.finding import Question
from csa_deploy.restricted.schema import load_pack
from csa_deploy.restricted.scopes import platform_of

if TYPE_CHECKING:
    from csa_deploy.config import Config
    from csa_deploy.records.errata import ErrataReport, Severity


_OPEN = ("8.6", "10", "11")
"""Versions that leave the release open."""


def question_of(config: Config) -> Question:
    """The question.

    Its version is the target's or that of ``--tensorrt``. Where neither says more than 8.6, 10 or 11, it is that of the
    scope, if all that are named have one, or of the TensorRT that is installed here, if it fits.

    Raises:
        UsageError: no such scope, or the target's file cannot be read.
    """
    target = platform_of(config)
    packs = [load_pack(scope) for scope in config.scope]
    of_scopes, here = {pack.tensorrt for pack in packs}, versions(["tensorrt"])["tensorrt"] or ""
    stated = (target.tensorrt if target else "") or config.tensorrt
    if stated in _OPEN and len(of_scopes) == 1 and not (target and target.tensorrt):
        stated = of_scopes.pop()
    elif stated in _OPEN and here.startswith(f"{stated}."):
        stated = here
    on_dla = any(option.replace("-", "_").startswith("dla_core") for option in config.builder_option)
    return Question(
        ".".join(stated.split(".")[:3]),
        target.platform if target and target.platform != "other" else "",
        on_dla or any(pack.kind == "dla" for pack in packs),
        tuple(config.precision),
    )


def errata_asked(config: Config) -> Question | None:
    """What a stage asks: everything, unless errata are not wanted."""
    return None if config.errata is False else question_of(config)


def errata_failure(report: ErrataReport | None, severity: Severity | None, name: str) -> OperationRejectedError | None:
    """The error of ``--fail-on``: the first problem of that severity or worse; None where there is none."""
    found = report.at_least(severity) if report is not None and severity is not None else []
    if not found:
        return None
    first, more = found[0], f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    place = f"{first.nodes[0]}: " if first.nodes else ""
    return OperationRejectedError(
        f"{name}: known problem {first.id} ({first.severity}): {place}{first.title}{more}", fix=first.workaround
    )
