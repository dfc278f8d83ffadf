"""The names and types of TensorRT's Python API that the code uses, held against the real bindings of each version."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tensorrt_bindings
from tensorrt_names import ANY, MODULE, names_in

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "csa_deploy"
REQUIREMENTS = [
    re.split("[;#]", line)[0].strip()
    for line in (ROOT / "requirements" / "bindings.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
BINDINGS = [requirement for requirement in REQUIREMENTS if "stubs" not in requirement]
ONLY_RTX = (PACKAGE / "engine" / "tensorrt_rtx.py",)
# restricted/ drives NVIDIA's validator, a TensorRT-RTX of its own version, and is tested on it.
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent.name != "restricted" and "probe" not in path.parts)
USED = {path: names for path in FILES if (names := names_in(path)).used}


RUNNERS = ("engine_runner.py", "device/memory.py", "device/timing.py")


def wheel(requirement: str) -> Path:
    lacking = f"{requirement} is not here: make bindings; 10.0 to 10.8 have none for Python 3.13"
    return tensorrt_bindings.wheel_of(requirement) or pytest.skip(lacking)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tensorrt_bindings.empty_libraries(tmp_path_factory.mktemp("libraries") / "lib")
    return found or pytest.skip("no C compiler")


def lacking(wanted: set[tuple[str, str]], members: dict[str, set[str]]) -> list[str]:
    everywhere = set().union(*members.values())
    return sorted(
        f"{owner or 'tensorrt'}.{name}"
        for owner, name in wanted
        if name not in (everywhere if owner == ANY else members.get(owner, ()))
    )


def test_the_names_are_found() -> None:
    """The collector itself: it sees the module, classes, objects, what comes of them, overrides and questions."""
    child, network, monitor = (
        names_in(PACKAGE / "engine" / name) for name in ("_child.py", "network.py", "monitor.py")
    )
    assert {(MODULE, "Runtime"), ("Runtime", "deserialize_cuda_engine"), ("IBuilderConfig", "get_flag")} <= child.used
    assert child.asked == {("NetworkDefinitionCreationFlag", "STRONGLY_TYPED")}
    assert {("INetworkDefinition", "num_layers"), ("ILayer", "metadata"), ("ITensor", "shape")} <= network.used
    assert ("IProgressMonitor", "step_complete") in monitor.used
    runner, memory, timing = (names_in(PACKAGE / "runners" / name) for name in RUNNERS)
    assert {("ICudaEngine", "get_tensor_shape"), ("LayerInformationFormat", "JSON")} <= runner.used
    assert ("ICudaEngine", "device_memory_size_v2") in memory.asked
    assert ("ICudaEngine", "device_memory_size") in memory.instead
    assert ("IExecutionContext", "execute_async_v3") in timing.used
    assert not any(name in ("items", "write", "get") for _, name in child.used)


@pytest.mark.parametrize("requirement", BINDINGS)
def test_every_name_is_in_the_bindings(requirement: str, libraries: Path, tmp_path: Path) -> None:
    members = tensorrt_bindings.members(tensorrt_bindings.unpacked(wheel(requirement), tmp_path), libraries)
    assert not {
        path.name: absent for path in USED if path not in ONLY_RTX and (absent := lacking(USED[path].needed, members))
    }
    # The check can fail: FP16 is a flag of 10 that 11 lacks.
    assert (lacking({("BuilderFlag", "FP16")}, members) == []) == ("==10." in requirement)


def test_what_is_asked_for_is_somewhere(libraries: Path, tmp_path: Path) -> None:
    """A name behind hasattr that no version has is misspelt, and nothing else would tell."""
    seen: dict[str, set[str]] = {}
    wheel(BINDINGS[-1])
    for requirement in filter(tensorrt_bindings.wheel_of, BINDINGS):
        unpacked = tensorrt_bindings.unpacked(wheel(requirement), tmp_path / requirement)
        for owner, names in tensorrt_bindings.members(unpacked, libraries).items():
            seen.setdefault(owner, set()).update(names)
    optional = {pair for path, names in USED.items() if path not in ONLY_RTX for pair in names.asked | names.instead}
    assert optional
    assert lacking(optional, seen) == []


@pytest.mark.rtx
def test_every_name_is_in_tensorrt_rtx() -> None:
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("TensorRT-RTX is not installed")
    code = tensorrt_bindings.LOOK.replace("tensorrt_bindings", "tensorrt_rtx")
    members = tensorrt_bindings.look(code, dict(os.environ))
    engine = {path: names for path, names in USED.items() if path.name != "tensorrt.py"}
    assert not {path.name: absent for path, names in engine.items() if (absent := lacking(names.needed, members))}


@pytest.mark.parametrize("requirement", [BINDINGS[0], BINDINGS[-1], REQUIREMENTS[-1]])
def test_types(requirement: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """mypy, with stubs from the bindings' own signatures, and with those that someone published for 10.13."""
    found = wheel(requirement)
    if "stubs" in requirement:
        stubs = tensorrt_bindings.unpacked(found, tmp_path / "stubs")
        tensorrt_bindings.make_valid(stubs / "tensorrt_bindings" / "tensorrt.pyi")
        tensorrt_bindings.make_valid(stubs / "tensorrt_bindings" / "__init__.pyi")
    else:
        libraries = request.getfixturevalue("libraries")
        bindings = tensorrt_bindings.unpacked(found, tmp_path / "wheel")
        stubs = tensorrt_bindings.make_stubs(bindings, libraries, tmp_path / "stubs")
    typed = [path for path in USED if "import tensorrt\n" in path.read_text()]
    files = [path for path in typed if not USED[path].instead]  # one of two names is always missing
    wrong = tmp_path / "wrong.py"
    network = PACKAGE / "engine" / "network.py"
    wrong.write_text(network.read_text().replace("network.num_layers", "network.number_of_layers"))
    assert network in files
    complaints = mypy(stubs, tmp_path, wrong, *files)
    assert complaints
    assert all("wrong.py" in line and "number_of_layers" in line for line in complaints), complaints


# What is not TensorRT's is left out: the project's own check covers it, and this takes seconds.
CONFIG = """[mypy]
check_untyped_defs = True
ignore_missing_imports = True
follow_imports = skip
[mypy-tensorrt.*,tensorrt_bindings.*]
follow_imports = silent
"""


def mypy(stubs: Path, scratch: Path, *files: Path) -> list[str]:
    program = shutil.which("mypy", path=str(Path(sys.executable).parent)) or pytest.skip("no mypy")
    (scratch / "mypy.ini").write_text(CONFIG)
    options = ["--config-file", str(scratch / "mypy.ini"), "--no-error-summary", "--hide-error-context"]
    done = subprocess.run(
        [program, *options, "--cache-dir", str(scratch / "cache"), *map(str, files)],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(stubs)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr
    return [line for line in done.stdout.splitlines() if ": note: " not in line]
