"""What goes wrong on a user's machine: one clear line, the documented exit code, and the next run works."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from csa_deploy.workspace import sha256_of

COMMAND = Path(sys.executable).with_name("csa-deploy")
RUN = ("--data", "x.npz", "--iterations", 2, "--threads", 1)
HAS_MOUNT = hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("mount") is not None


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of the error."""
    assert "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("csa-deploy: ")]
    assert len(lines) == 1 and done.stderr.splitlines()[-1] == lines[0], done.stderr
    return lines[0]


def assert_whole(root: Path) -> None:
    """No temporary file, and every file that the manifest states is there and has its hash."""
    found = [p.relative_to(root).as_posix() for p in root.rglob("*")]
    assert not [p for p in found if ".tmp" in p or ".partial" in p or p.startswith(".scratch")], found
    if (root / "manifest.json").exists():
        for stage in json.loads((root / "manifest.json").read_text())["stages"].values():
            for path, stated in stage["artifacts"].items():
                assert sha256_of(root / path) == stated["sha256"]


def truncated(lab: Path) -> None:
    content = (lab / "tiny.onnx").read_bytes()
    (lab / "bad.onnx").write_bytes(content[: len(content) // 2])


def text(lab: Path) -> None:
    (lab / "bad.onnx").write_text("no model\n" * 50)


def empty(lab: Path) -> None:
    (lab / "bad.onnx").write_bytes(b"")


def folder(lab: Path) -> None:
    (lab / "bad.onnx").mkdir()


def outside(lab: Path) -> None:
    (lab / "secret.bin").write_bytes(b"\0" * 4096)
    (lab / "sub").mkdir()
    model = onnx.load(lab / "tiny.onnx")
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.bin")
    onnx.save(model, lab / "sub/bad.onnx")


def dynamic(lab: Path) -> None:
    model = onnx.load(lab / "tiny.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    onnx.save(model, lab / "bad.onnx")


def unknown_operator(lab: Path) -> None:
    model = onnx.load(lab / "tiny.onnx")
    model.graph.node[1].op_type = "Frobnicate"
    onnx.save(model, lab / "bad.onnx")


@pytest.mark.parametrize(
    ("make", "network", "said"),
    [
        (truncated, "bad.onnx", "damaged or cut short"),
        (text, "bad.onnx", "is not an ONNX model"),
        (empty, "bad.onnx", "is not an ONNX model"),
        (folder, "bad.onnx", "is a folder, not a file"),
        (outside, "sub/bad.onnx", "external data '../secret.bin' of tensor 'first' in sub/bad.onnx points outside"),
        (dynamic, "bad.onnx", "input 'x' has no fixed size on axis 2 'H'"),
        (unknown_operator, "bad.onnx", "Frobnicate"),
    ],
)
def test_bad_onnx(lab: Path, csa: Any, make: Callable[[Path], None], network: str, said: str) -> None:
    make(lab)
    done = csa(lab, "run", network, *RUN)
    assert done.returncode == 2 and said in last_line(done)
    assert not list((lab / "deploy").rglob("*.onnx")) and not list((lab / "deploy").rglob("manifest.json"))


class Evil:
    """Creates a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, ("pwned",)


def zipped_pickle(path: Path) -> None:
    torch.save({"model": Evil()}, path)


def bare_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"model": Evil()}))


def wrong_keys(path: Path) -> None:
    torch.save({"model": {"0.weight": torch.zeros(8, 3, 3, 3), "extra": torch.zeros(1)}}, path)


def wrong_shape(path: Path) -> None:
    torch.save({"0.weight": torch.zeros(1, 3, 3, 3)}, path)


def no_checkpoint(path: Path) -> None:
    path.write_text("weights")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (zipped_pickle, "refused: to load it means to run code that it names"),
        (bare_pickle, "cannot be read as a checkpoint"),
        (wrong_keys, "3 missing (0.bias, 3.weight, 3.bias); 1 unexpected (extra)"),
        (wrong_shape, "1 mis-shaped (0.weight 1x3x3x3 instead of 8x3x3x3)"),
        (no_checkpoint, "cannot be read as a checkpoint"),
        (lambda path: None, "c.pth: no such checkpoint file"),
    ],
)
def test_bad_checkpoint(lab: Path, csa: Any, make: Callable[[Path], None], said: str) -> None:
    make(lab / "c.pth")
    done = csa(lab, "export", "nets.py:tiny", "--checkpoint", "c.pth")
    assert done.returncode == 2 and said in last_line(done)
    assert not (lab / "pwned").exists() and not list((lab / "deploy").rglob("*.onnx"))


def test_a_network_that_fails(lab: Path, csa: Any) -> None:
    done = csa(lab, "export", "nets.py:broken")
    assert done.returncode == 2
    assert "nets.py:broken: the network fails on input (1, 3, 224, 224): RuntimeError: no such luck" in last_line(done)


def test_a_size_that_the_network_cannot_mean(lab: Path, csa: Any) -> None:
    done = csa(lab, "run", "csa_digits", "--size", "1x1")
    assert done.returncode == 2 and "the smallest side is 8" in last_line(done)


def text_as_image(lab: Path) -> str:
    for label in ("3", "4"):  # one class alone is refused for itself
        (lab / "images" / label).mkdir(parents=True)
        (lab / "images" / label / "a.jpg").write_text("no image")
    return "images"


def one_pixel(lab: Path) -> str:
    from PIL import Image

    (lab / "images").mkdir()
    Image.new("RGB", (1, 1), (200, 100, 50)).save(lab / "images/a.png")
    return "images"


def no_images(lab: Path) -> str:
    (lab / "images/3").mkdir(parents=True)
    return "images"


def other_shape(lab: Path) -> str:
    np.savez(lab / "y.npz", x=np.zeros((2, 3, 8, 8), "f4"))
    return "y.npz"


def pickled(lab: Path) -> str:
    np.savez(lab / "y.npz", x=np.array([{"a": 1}], dtype=object))
    return "y.npz"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (text_as_image, "images/3/a.jpg: cannot be read as an image"),
        (no_images, "images: no images in this folder"),
        (
            other_shape,
            "the data do not fit the network: the network takes x (n, 3, 16, 16), the data hold x (n, 3, 8, 8)",
        ),
        (pickled, "holds pickled objects, which are never loaded"),
        (lambda lab: "tiny.onnx", "neither a folder of images"),
        (lambda lab: "digit", "did you mean 'digits'?"),
    ],
)
def test_bad_data_are_refused_before_the_work(lab: Path, csa: Any, make: Callable[[Path], str], said: str) -> None:
    done = csa(lab, "run", "tiny.onnx", "--data", make(lab))
    assert done.returncode == 2 and said in last_line(done)
    assert not list((lab / "deploy").rglob("manifest.json"))


def test_an_image_of_one_pixel_works(lab: Path, csa: Any) -> None:
    assert csa(lab, "verify", "tiny.onnx", "--data", one_pixel(lab)).returncode == 0


def test_a_corrupt_manifest(lab: Path, csa: Any) -> None:
    assert csa(lab, "export", "tiny.onnx").returncode == 0
    (lab / "deploy/tiny/manifest.json").write_text("{")
    for verb in ("run", "report"):
        done = csa(lab, verb, "tiny.onnx", *(RUN if verb == "run" else ()))
        assert done.returncode == 2 and "not a readable manifest" in last_line(done)
        assert "delete deploy/tiny and run again" in last_line(done)
    shutil.rmtree(lab / "deploy/tiny")
    assert csa(lab, "export", "tiny.onnx").returncode == 0


def test_two_at_once(lab: Path, csa: Any) -> None:
    (lab / "slow.py").write_text(
        "import time\nfrom nets import *\ndef slow():\n    open('in', 'w').close(); time.sleep(60)\n    return tiny()\n"
    )
    first = subprocess.Popen([COMMAND, "export", "slow.py:slow", "-w", "w"], cwd=lab, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: (lab / "in").exists())
        second = csa(lab, "export", "tiny.onnx", "-w", "w")
        assert second.returncode == 2 and "w: another csa-deploy is at work in this workspace" in last_line(second)
    finally:
        first.send_signal(signal.SIGINT)
        said = first.communicate(timeout=120)[1]
    assert first.returncode == 130 and "interrupted; what was finished is kept" in said and "Traceback" not in said
    assert csa(lab, "export", "tiny.onnx", "-w", "w").returncode == 0


def wait_for(ready: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


@pytest.fixture()
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """``mounted(options)``: a small file system of its own; skipped where mounting is not allowed."""
    places: list[Path] = []

    def mount(options: str) -> Path:
        if not HAS_MOUNT:
            pytest.skip("mounting a file system needs root")
        place = tmp_path / f"disk{len(places)}"
        place.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True).returncode:
            pytest.skip("mounting a file system is not allowed here")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("kib", [4, 16, 48])
def test_a_full_disk(lab: Path, csa: Any, mounted: Callable[..., Path], kib: int) -> None:
    disk = mounted(f"size={kib}k")
    done = csa(lab, "run", "tiny.onnx", *RUN, "-w", disk / "w")
    assert done.returncode == 3, done.stderr
    assert "disk is full" in last_line(done) or "No space left" in last_line(done) or "space" in last_line(done)
    assert_whole(disk / "w")


def test_a_limit_on_file_size(lab: Path) -> None:
    """The same without root: no file may be larger than 1 KiB."""
    uncounted = "unset COVERAGE_PROCESS_CONFIG"  # the count of its lines is a larger file
    limited = f"{uncounted}; ulimit -f 1; exec {COMMAND} export tiny.onnx -w w"
    done = subprocess.run(["bash", "-c", limited], cwd=lab, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    last_line(done)
    assert_whole(lab / "w")


def test_a_read_only_disk(lab: Path, csa: Any, mounted: Callable[..., Path]) -> None:
    disk = mounted("size=8m")
    assert csa(lab, "export", "tiny.onnx", "-w", disk / "w").returncode == 0
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    for place in ("w", "new"):
        done = csa(lab, "run", "tiny.onnx", *RUN, "-w", disk / place)
        assert done.returncode == 3, done.stderr
        assert "cannot be written" in last_line(done) and "--workspace" in last_line(done)
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    assert_whole(disk / "w")
    assert csa(lab, "optimize", "tiny.onnx", "-w", disk / "w").returncode == 0


def test_a_workspace_that_is_a_file(lab: Path, csa: Any) -> None:
    done = csa(lab, "export", "tiny.onnx", "-w", "x.npz")
    assert done.returncode in (2, 3) and "x.npz" in last_line(done)
