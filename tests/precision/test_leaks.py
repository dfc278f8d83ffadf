"""What accuracy is measured on is not calibrated on, however it is stored."""

import io
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from csa_deploy.config import make_config
from csa_deploy.context import Context
from csa_deploy.data.dataset import open_dataset
from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.network import Preprocessing
from csa_deploy.pipeline import run_stages
from csa_deploy.precision import leaks
from csa_deploy.precision.calibration_data import open_calibration
from csa_deploy.precision.leaks import refuse_overlap
from csa_deploy.source import load_source
from csa_deploy.workspace import Workspace

HOW = Preprocessing(size=(32, 32), mean=(0.5,) * 3, std=(0.25,) * 3, crop=1.0)
SHAPES = {"x": (1, 3, 32, 32)}


def picture(seed: int) -> np.ndarray:
    """Something with shapes and a texture, 48 x 64."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (6, 8, 3), np.uint8))
    smooth = np.asarray(coarse.resize((64, 48), Image.Resampling.BICUBIC), np.int64)
    return np.clip(smooth + draw.integers(-8, 8, smooth.shape), 0, 255).astype(np.uint8)


def folder(path: Path, seeds: range) -> Path:
    path.mkdir()
    for seed in seeds:
        Image.fromarray(picture(seed)).save(path / f"{seed:02d}.png")
    return path


@pytest.fixture()
def evaluation(tmp_path):
    return open_dataset(folder(tmp_path / "evaluation", range(12)), HOW)


def calibration(spec: Path):
    return open_calibration(str(spec), HOW, SHAPES)


def encoded(path: Path, suffix: str, how: dict) -> Path:
    path.mkdir()
    for seed in (20, 3, 21):
        Image.fromarray(picture(seed)).save(path / f"{seed}{suffix}", **how)
    return path


@pytest.mark.parametrize(("suffix", "how"), [(".png", {"compress_level": 1}), (".bmp", {}), (".tif", {}), (".ppm", {})])
@pytest.mark.shows("MEA-20", "ERR-16")
def test_the_same_pixels_in_another_file_are_found(evaluation, tmp_path, suffix, how):
    data = calibration(encoded(tmp_path / "c", suffix, how))
    with pytest.raises(UsageError, match=rf"1 of 3 calibration images of .* the first is 3\{suffix}"):
        refuse_overlap(data, evaluation)


@pytest.mark.shows("MEA-20", "ERR-16")
def test_the_same_tensors_in_an_npz_are_found_both_ways(evaluation, tmp_path):
    tensors = np.concatenate([batch.inputs["image"] for batch in evaluation.batches(4)])
    np.savez(tmp_path / "t.npz", x=np.concatenate([tensors[5:7], tensors[5:7] + 1]))
    with pytest.raises(UsageError, match="2 of 4 calibration images"):
        refuse_overlap(calibration(tmp_path / "t.npz"), evaluation)
    with pytest.raises(UsageError, match="2 of 12 calibration images"):
        refuse_overlap(calibration(tmp_path / "evaluation"), open_dataset(tmp_path / "t.npz", HOW))


def test_a_named_set_in_files_is_found(tmp_path):
    how = Preprocessing(size=(32, 32), mode="L", mean=(0.13,), std=(0.3,))
    try:
        digits = open_dataset("digits", how)
    except EnvironmentLacksError as error:
        pytest.skip(error.message)
    (tmp_path / "png").mkdir()
    for sample in digits.samples[:6]:
        sample.image().save(tmp_path / "png" / f"{sample.id}.png")
    shapes = {"x": (1, 1, 32, 32)}
    with pytest.raises(UsageError, match="6 of 6 calibration images"):
        refuse_overlap(open_calibration(str(tmp_path / "png"), how, shapes), digits)
    training = open_calibration("digits:train", how, shapes, samples=300)
    assert refuse_overlap(training, digits) == []  # no two digits are taken for one


def test_tensors_with_several_inputs_are_compared_by_name(tmp_path):
    draw = np.random.default_rng(0)
    first = {"a": draw.standard_normal((4, 3)).astype("f4"), "b": draw.standard_normal((4, 3)).astype("f4")}
    np.savez(tmp_path / "a.npz", **first)
    np.savez(tmp_path / "swapped.npz", a=first["b"], b=first["a"])
    np.savez(tmp_path / "same.npz", b=first["b"][2:], a=first["a"][2:])
    data = open_calibration(str(tmp_path / "a.npz"), None, {"a": (1, 3), "b": (1, 3)})
    assert refuse_overlap(data, open_dataset(tmp_path / "swapped.npz", None)) == []
    with pytest.raises(UsageError, match="2 of 4 calibration images"):
        refuse_overlap(data, open_dataset(tmp_path / "same.npz", None))


def changed(image: Image.Image, kind: str) -> Image.Image:
    if kind == "compressed":
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=60)
        return Image.open(buffer).convert("RGB")
    if kind == "scaled":
        return image.resize((32, 24), Image.Resampling.BICUBIC)
    return image.point(lambda value: min(255, int(value * 1.1)))


@pytest.mark.parametrize("kind", ["compressed", "scaled", "brighter"])
def test_nearly_the_same_is_a_warning_with_both_names(evaluation, tmp_path, kind):
    path = folder(tmp_path / "c", range(20, 23))
    changed(Image.fromarray(picture(7)), kind).save(path / "copy.png")
    (told,) = refuse_overlap(calibration(path), evaluation)
    assert told.startswith("1 of 4 calibration images") and "the first is copy.png (like 07.png)" in told


def test_different_pictures_and_empty_ones_are_not_nearly_the_same(tmp_path, evaluation):
    path = folder(tmp_path / "c", range(20, 32))
    Image.new("RGB", (64, 48), (90, 90, 90)).save(path / "grey.png")
    assert refuse_overlap(calibration(path), evaluation) == []


def test_of_a_large_set_the_rest_is_compared_by_file(tmp_path, evaluation, monkeypatch):
    monkeypatch.setattr(leaks, "COMPARED", 3)
    (told,) = refuse_overlap(calibration(folder(tmp_path / "c", range(20, 23))), evaluation)
    assert told.startswith("calibration images were compared with 3 of the 12 evaluation images by their content")
    shutil.copy(tmp_path / "evaluation" / "11.png", tmp_path / "c" / "renamed.png")
    with pytest.raises(UsageError, match=r"1 of 4 .* the first is renamed\.png"):
        refuse_overlap(calibration(tmp_path / "c"), evaluation)


def test_an_evaluation_file_that_cannot_be_read_is_left_to_the_comparison(tmp_path, evaluation):
    target = tmp_path / "evaluation" / "04.png"
    target.write_bytes(target.read_bytes()[:200])
    assert refuse_overlap(calibration(folder(tmp_path / "c", range(20, 23))), evaluation) == []


def test_random_numbers_are_in_no_set(evaluation):
    assert refuse_overlap(open_calibration("random", HOW, SHAPES, samples=3), evaluation) == []


def test_the_record_names_near_duplicates(tmp_path, caplog):
    """From the precision stage to the notes that console and report show."""
    weight = onnx.numpy_helper.from_array(np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype("f4"), "w")
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    shapes = {"x": (1, 3, 32, 32), "y": (1, 4, 30, 30)}
    values = [onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()]
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:], [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, tmp_path / "net.onnx")
    draw = np.random.default_rng(1)
    arrays = np.stack([picture(seed).transpose(2, 0, 1)[:, :32, :32] for seed in range(8)]).astype("f4")
    np.savez(tmp_path / "c.npz", x=arrays[:4] + draw.standard_normal((4, 3, 32, 32)).astype("f4"))
    np.savez(tmp_path / "e.npz", x=arrays[3:])
    given = {"network": str(tmp_path / "net.onnx"), "calib": str(tmp_path / "c.npz"), "data": str(tmp_path / "e.npz")}
    settings = {**given, "precision": ["int8"], "search": False, "techniques": ["none"], "threads": 1}
    context = Context(make_config(settings), load_source(given["network"]), Workspace(tmp_path / "ws"))
    with context.workspace.locked():
        run_stages(["precision"], context)
    record = context.workspace.record("precision")
    (leak,) = record["calibration"]["leaks"]
    assert leak.startswith("1 of 4 calibration images") and leak in record["notes"] and leak in caplog.text
