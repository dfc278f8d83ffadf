"""What a training says before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from csa_deploy.cli.main import app
from csa_deploy.train.options import TrainOptions
from csa_deploy.train.plan import batches
from csa_deploy.train.recipe import load_recipe

NODES = "--nodes 2 --devices 8 --accelerator cpu"


def said(arguments: str) -> str:
    done = CliRunner().invoke(app, ["train", *arguments.split()])
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def test_the_published_training() -> None:
    text = said(f"--model convselfattn --batch_size 128 --update_freq 2 --dry-run --images 1281167 {NODES}")
    assert "global batch 4,096 (128 per device x 2 steps x 16 devices)" in text
    assert "312 updates per epoch, 93,600 in 300 epochs, 6,240 of them warm-up" in text
    assert "scaled" not in text


def test_another_global_batch_and_the_images_of_a_folder(images: Path) -> None:
    text = said(f"convselfattn --dry-run --data {images} --batch-size 4 --accumulate 3 --devices 2 --accelerator cpu")
    assert "50 images, global batch 24" in text
    assert "scaled linearly it would be --lr 2.34e-05" in text


def test_a_number_of_images_without_dry_run_is_refused() -> None:
    assert CliRunner().invoke(app, ["train", "csa_digits", "--images", "5"]).exit_code == 2


@pytest.mark.parametrize(
    ("world", "given", "expected"),
    [
        (16, {}, (128, 2)),
        (8, {}, (128, 4)),
        (1, {}, (128, 32)),
        (3, {}, (124, 11)),  # 4096 cannot be shared among three
        (16, {"batch_size": 64}, (64, 4)),
        (16, {"accumulate": 4}, (64, 4)),
        (2, {"batch_size": 4, "accumulate": 3}, (4, 3)),
    ],
)
def test_batches_meet_the_global_batch_where_they_can(world: int, given: dict, expected: tuple[int, int]) -> None:
    options = TrainOptions("imagenet", Path("out"), load_recipe("imagenet"), **given)
    assert batches(options, world) == expected
