"""Networks offered by installed packages; packages are made on the import path."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from csa_deploy import registry
from csa_deploy.errors import UsageError

GOOD = """
from csa_deploy.network import NetworkEntry, Preprocessing
def make(input_size=(8, 8)): raise AssertionError("listing must not make networks")
tiny = NetworkEntry("tiny", "a test", make, Preprocessing((8, 8)), "none")
"""


def install(folder: Path, package: str, code: str, points: dict[str, str]) -> None:
    """What pip leaves behind for a package with entry points."""
    (folder / f"{package}.py").write_text(code)
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = "\n".join(f"{name} = {value}" for name, value in points.items())
    (info / "entry_points.txt").write_text(f"[csa_deploy.models]\n{lines}\n")


def test_our_networks_are_there() -> None:
    found = registry.discover()
    assert {"convselfattn", "convselfattn_pad1", "csa_digits"} <= found.entries.keys()
    assert not found.broken
    assert registry.get("csa_digits").preprocessing.size == (32, 32)
    assert registry.module_of("csa_digits") == "csa_models.registry"


def test_other_packages_add_networks_and_a_broken_one_harms_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(
        tmp_path, "plug_good", GOOD, {"tiny": "plug_good:tiny", "alias": "plug_good:tiny", "func": "plug_good:make"}
    )
    install(tmp_path, "plug_bad", "import no_such_package\n", {"crashing": "plug_bad:net", "lost": "plug_gone:net"})
    monkeypatch.syspath_prepend(tmp_path)
    found = registry.discover()
    assert found.entries["tiny"].summary == "a test"
    assert {"convselfattn", "csa_digits"} <= found.entries.keys()
    assert found.broken.keys() == {"crashing", "lost", "alias", "func"}
    assert "(plug_bad:net) is unusable: ModuleNotFoundError" in found.broken["crashing"]
    assert "calls itself 'tiny'" in found.broken["alias"]
    assert "is a function, not a NetworkEntry" in found.broken["func"]


def test_a_name_offered_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "plug_one", GOOD, {"tiny": "plug_one:tiny"})
    install(tmp_path, "plug_two", GOOD, {"tiny": "plug_two:tiny"})
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="offered twice: plug_one:tiny and plug_two:tiny"):
        registry.get("tiny")


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'convselfattn' or 'convselfattn_pad1'"):
        registry.get("convselfatn")
    with pytest.raises(UsageError, match=r"registered networks: .*csa_digits"):
        registry.get("zzz")


def test_listing_loads_nothing_heavy() -> None:
    code = (
        "import sys; from csa_deploy.registry import discover; discover()\n"
        "assert not {'torch', 'onnx', 'onnxruntime', 'numpy', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
