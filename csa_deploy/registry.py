"""Networks that installed packages offer through the entry-point group ``csa_deploy.models``.

An entry point resolves to a :class:`~csa_deploy.network.NetworkEntry` and is named like it. Nothing heavy is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata

from csa_deploy.errors import UsageError
from csa_deploy.naming import did_you_mean
from csa_deploy.network import ENTRY_POINT_GROUP, NetworkEntry


@dataclass(frozen=True)
class Registry:
    """All that is offered.

    Attributes:
        entries: the usable networks by name, sorted.
        broken: why an offered network is unusable, by name.
    """

    entries: dict[str, NetworkEntry]
    broken: dict[str, str]


def discover() -> Registry:
    """Load every offered entry; one that fails is reported in ``broken`` and harms no other."""
    entries: dict[str, NetworkEntry] = {}
    broken: dict[str, str] = {}
    for name in names():
        try:
            entries[name] = get(name)
        except UsageError as error:
            broken[name] = error.message
    return Registry(entries, broken)


def names() -> list[str]:
    """Names of the offered networks, sorted, without loading them."""
    return sorted({point.name for point in metadata.entry_points(group=ENTRY_POINT_GROUP)})


def get(name: str) -> NetworkEntry:
    """The network of that name.

    Raises:
        UsageError: nobody offers it, two packages do, or the package that does is broken.
    """
    point = _point(name)
    try:
        entry = point.load()
    except Exception as error:  # a plug-in may fail in any way
        raise _broken(point, f"{type(error).__name__}: {error}") from error
    if not isinstance(entry, NetworkEntry):
        raise _broken(point, f"is a {type(entry).__name__}, not a NetworkEntry")
    if entry.name != name:
        raise _broken(point, f"calls itself '{entry.name}'")
    return entry


def module_of(name: str) -> str:
    """Full name of the Python module that offers a network; raises UsageError as :func:`get`."""
    return _point(name).module


def _point(name: str) -> metadata.EntryPoint:
    # An editable install can list the same entry point twice; equal values are one offer.
    offered = {p.value: p for p in metadata.entry_points(group=ENTRY_POINT_GROUP) if p.name == name}
    if not offered:
        raise _unknown(name)
    if len(offered) > 1:
        raise UsageError(
            f"network '{name}' is offered twice: {' and '.join(sorted(offered))}", fix="uninstall one of the packages"
        )
    return next(iter(offered.values()))


def _broken(point: metadata.EntryPoint, reason: str) -> UsageError:
    return UsageError(
        f"network '{point.name}' ({point.value}) is unusable: {reason}",
        fix="repair or reinstall the package that offers it",
    )


def _unknown(name: str) -> UsageError:
    known = names()
    registered = f"registered networks: {', '.join(known) or 'none'}"
    return UsageError(f"no network is registered as '{name}'", fix=did_you_mean(name, known, registered, most=3))
