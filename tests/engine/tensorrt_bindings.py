"""NVIDIA's own Python bindings of several TensorRT versions, looked at without TensorRT, a GPU or a driver.

The bindings' wheels on PyPI are small (1.2 MB) and the libraries behind them are not. An extension module only needs
libraries of the right names to be loaded: here they are empty, made by the C compiler, and nothing in them is called.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

WHEELS = Path(sys.prefix) / "bindings"  # where `make bindings` puts what requirements/bindings.txt names
_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
# What the extension takes from TensorRT's libraries; all else is virtual functions of objects that they make.
_FUNCTIONS = (
    *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL"),
    *("createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL", "getBuilderPluginRegistry"),
    *("getNvOnnxParserVersion", "getPluginRegistry", "initLibNvInferPlugins"),
)
LOOK = """
import json, tensorrt_bindings as trt
classes = {name: dir(value) for name, value in vars(trt).items() if isinstance(value, type)}
print(json.dumps({"": dir(trt), **classes}))
"""


def wheel_of(requirement: str) -> Path | None:
    """The file of ``name==version``; None when it was not fetched."""
    name, _, version = requirement.partition("==")
    return next(iter(WHEELS.glob(f"{name.replace('-', '_')}-{version}-*.whl")), None)


def unpacked(wheel: Path, folder: Path) -> Path:
    """The content of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def empty_libraries(folder: Path) -> Path | None:
    """A folder of libraries that bindings of every version load; None without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    folder.mkdir()
    source = folder / "empty.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in _FUNCTIONS))
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(folder / "empty.so"), str(source)], check=True)
    for name in _LIBRARIES:
        for major in (10, 11):
            (folder / f"lib{name}.so.{major}").symlink_to("empty.so")
    return folder


def members(bindings: Path, libraries: Path) -> dict[str, set[str]]:
    """Class -> its members, of loaded bindings; those of the module itself under the empty name."""
    return look(LOOK, _environment(bindings, libraries))


def look(code: str, environment: dict[str, str]) -> dict[str, set[str]]:
    """What :data:`LOOK` prints, as sets."""
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return {name: set(found) for name, found in json.loads(done.stdout).items()}


def make_stubs(bindings: Path, libraries: Path, folder: Path) -> Path:
    """Type stubs of loaded bindings, by mypy's stubgen from the signatures that they state."""
    program = Path(sys.executable).with_name("stubgen")
    subprocess.run(
        [str(program), "--inspect-mode", "-m", "tensorrt_bindings.tensorrt", "-o", str(folder)],
        env=_environment(bindings, libraries),
        capture_output=True,
        check=True,
    )
    (folder / "tensorrt_bindings" / "__init__.pyi").touch()
    (folder / "tensorrt").mkdir()
    (folder / "tensorrt" / "__init__.pyi").write_text("from tensorrt_bindings.tensorrt import *\n")
    make_valid(folder / "tensorrt_bindings" / "tensorrt.pyi")
    return folder


def make_valid(stub: Path) -> None:
    """Correct what is no Python, or hides the rest, in a stub that was made from the bindings' own words."""
    text = re.sub(r"^(bool|int|float): .*\n", "", stub.read_text(), flags=re.MULTILINE)  # tensorrt.bool is a DataType
    # Dims has __getitem__ and __len__, which Python takes for an iterable and mypy does not.
    text = text.replace("\nclass Dims:\n", "\nclass Dims:\n    def __iter__(self) -> typing.Iterator[int]: ...\n")
    lines = ["# mypy: ignore-errors", "import typing", *text.split("\n")]
    while True:
        try:
            ast.parse("\n".join(lines))
            break
        except SyntaxError as error:  # a parameter called "in", or one without a default behind one with
            assert error.lineno is not None
            line = lines[error.lineno - 1]
            signature = re.match(r"( *def \w+)\(.*?(?: \.\.\.)?$", line)
            assert signature, line
            lines[error.lineno - 1] = f"{signature[1]}(self, *args, **kwargs):{' ...' if line.endswith('...') else ''}"
    stub.write_text("\n".join(lines))


def _environment(bindings: Path, libraries: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(bindings), "LD_LIBRARY_PATH": str(libraries)}
