"""The program that compares a safety engine on its target: compiled against stub headers, and run with them.

The stubs hold the names of NVIDIA's public samples; with NVIDIA's own headers it was never compiled.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from csa_deploy.bundle.runtime import is_safe, runtime_files
from csa_deploy.records.build import Part

STUBS = Path(__file__).with_name("stubs")
COMPANION = "-DCSA_CREATE_WITH_COMPANION(g,b,s,r,p)=nvinfer2::safe::stubWithCompanion(g,b,s,r,p)"
VALUES = np.array([1.0, -2.5, 0.0, 65504.0, 6e-8, -0.333], np.float32)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    parts = [Part("companion", "host.so", "", 0)]
    for name, content in runtime_files("engine/e.engine", parts, ["tolerance 0.001"]).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder / "runtime"


@pytest.fixture(scope="module")
def programs(sources: Path) -> dict[bool, Path]:
    """Without and with the function that takes a companion."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler on this machine")
    made = {}
    for paired in (False, True):
        made[paired] = sources.parent / f"safe_compare{paired:d}"
        words = [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{STUBS}", *([COMPANION] if paired else [])]
        subprocess.run([*words, "-o", str(made[paired]), str(sources / "safe_compare.cpp")], check=True)
    return made


def compare(
    program: Path, folder: Path, engine: str, wanted: np.ndarray, *, companion: str = "-", tolerance: float = 1e-3
) -> tuple[int, str]:
    (folder / "e.engine").write_text(engine)
    (folder / "in.raw").write_bytes(VALUES.tobytes())
    (folder / "out.raw").write_bytes(wanted.astype(np.float32).tobytes())
    (folder / "list.txt").write_text(f"tolerance {tolerance}\nsample 0\ninput x in.raw\noutput y out.raw\n")
    words = [str(program), "e.engine", companion, "list.txt"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["FLOAT", "HALF"])
def test_equal_outputs_pass_and_others_fail(programs: dict[bool, Path], tmp_path: Path, kind: str) -> None:
    factor = 0.5  # what HALF holds of these is exact, but for the last
    engine = f"x y {VALUES.size} {kind} {factor}"
    wanted = factor * VALUES
    assert compare(programs[False], tmp_path, engine, wanted)[0] == 0
    largest = np.abs(wanted).max()
    for share, status in ((0.0009, 0), (0.0011, 2)):  # both sides of the tolerance
        other = wanted.copy()
        other[0] += share * largest
        assert compare(programs[False], tmp_path, engine, other)[0] == status
    status, said = compare(programs[False], tmp_path, engine, -wanted)
    assert status == 2 and "BEYOND y" in said and said.endswith("FAILED\n")


def test_halves_are_read_as_numpy_reads_them(programs: dict[bool, Path], tmp_path: Path) -> None:
    wanted = VALUES.astype(np.float16).astype(np.float32)
    wanted[-1] = VALUES[-1]  # the stub cuts where NumPy rounds
    engine = f"x y {VALUES.size} HALF 1.0"
    assert compare(programs[False], tmp_path, engine, wanted, tolerance=1e-8)[0] == 0


def test_values_that_are_not_finite_fail(programs: dict[bool, Path], tmp_path: Path) -> None:
    largest = np.full_like(VALUES, np.finfo(np.float32).max)
    status, said = compare(programs[False], tmp_path, f"x y {VALUES.size} FLOAT 1e38", largest, tolerance=9.0)
    assert status == 2 and "not finite" in said


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ("nothing", "createTRTGraph: error 3"),
        (f"x y {VALUES.size} FLOAT 1 padded", "build with linear formats"),
        (f"x y {VALUES.size} FLOAT 1 error", "the runtime reported errors"),
        (f"x y {VALUES.size} FLOAT 1 code", "executeAsync: error 7"),
        (f"x z {VALUES.size} FLOAT 1", "the engine has no output y"),
        ("x y 3 FLOAT 1", "in.raw: 24 bytes, x takes 12"),
    ],
)
def test_what_cannot_be_told(programs: dict[bool, Path], tmp_path: Path, engine: str, message: str) -> None:
    status, said = compare(programs[False], tmp_path, engine, VALUES)
    assert status == 1 and message in said


def test_a_companion_counts(programs: dict[bool, Path], tmp_path: Path) -> None:
    (tmp_path / "host.so").write_text("3.0\n")
    engine = f"x y {VALUES.size} FLOAT 1.0"
    assert compare(programs[True], tmp_path, engine, 3 * VALUES, companion="host.so")[0] == 0
    assert compare(programs[True], tmp_path, engine, VALUES, companion="host.so")[0] == 2
    assert compare(programs[True], tmp_path, engine, VALUES, companion="missing.so")[0] == 1
    status, said = compare(programs[False], tmp_path, engine, VALUES, companion="host.so")
    assert status == 1 and "CSA_CREATE_WITH_COMPANION" in said


def test_cmake_builds_it(sources: Path, tmp_path: Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("no CMake on this machine")
    settings = {"TENSORRT_INCLUDE": STUBS, "CUDA_INCLUDE": STUBS, "SAFE_LIBRARY": "", "CUDA_LIBRARY": ""}
    words = [f"-D{name}={value}" for name, value in settings.items()]
    subprocess.run(["cmake", "-S", str(sources), "-B", str(tmp_path), *words], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", str(tmp_path)], check=True, capture_output=True)
    assert (tmp_path / "safe_compare").is_file()


def test_how_to_use_it_is_said(sources: Path) -> None:
    assert "engine/e.engine engine/e.engine.parts/host.so runtime/samples.txt" in (sources / "README.txt").read_text()
    assert is_safe(["trtexec", "--safe"])
    assert not is_safe(["trtexec", "--safe", "--useDLACore=0"]) and not is_safe([])
