"""``csa-deploy train``: the published recipe, its options in today's and in their old spelling."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.helping import GroupedCommand
from csa_deploy.cli.options import flags

if TYPE_CHECKING:
    from csa_deploy.train.options import TrainOptions
    from csa_deploy.train.plan import TrainPlan
    from csa_deploy.train.result import EpochSummary, Score, TrainResult

# Old spelling -> ours; a pair stands for the two sides of a switch.
OLD_VALUES = {
    "--data_path": "--data",
    "--output_dir": "--output",
    "--batch_size": "--batch-size",
    "--update_freq": "--accumulate",
    "--warmup_epochs": "--warmup-epochs",
    "--drop_path": "--drop-path",
    "--weight_decay": "--weight-decay",
    "--min_lr": "--min-lr",
    "--input_size": "--size",
    "--num_workers": "--workers",
    "--layer_scale_init_value": "--layer-scale",
    "--model_ema_decay": "--ema-decay",
}
OLD_SWITCHES = {
    "--use_amp": ("--amp", "--no-amp"),
    "--model_ema": ("--ema", "--no-ema"),
    "--model_ema_eval": (None, None),  # both weights are always evaluated
    "--sync_BN": ("--sync-bn", "--no-sync-bn"),
    "--eval": ("--evaluate-only", None),
}
_FIGURES = {"top1": "top-1", "top5": "top-5", "mean_iou": "mean IoU", "map": "mAP", "map50": "mAP at IoU 0.5"}
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


def modern(arguments: Sequence[str]) -> list[str]:
    """The command line with the published options in today's spelling; ``--model`` becomes the network."""
    result: list[str] = []
    rest = [part for argument in arguments for part in _split(argument)]
    while rest:
        argument = rest.pop(0)
        if argument == "--model" and rest:
            result.append(rest.pop(0))
        elif argument in OLD_SWITCHES:
            value = rest.pop(0).lower() if rest and rest[0].lower() in (*_TRUE, *_FALSE) else "true"
            ours = OLD_SWITCHES[argument][value in _FALSE]
            result += [ours] if ours else []
        else:
            result.append(OLD_VALUES.get(argument, argument))
    return result


def _split(argument: str) -> list[str]:
    """``--old=value`` in two parts."""
    name, equals, value = argument.partition("=")
    return [name, value] if equals and (name in OLD_VALUES or name in OLD_SWITCHES or name == "--model") else [argument]


class TrainCommand(GroupedCommand):
    """Understands the published command lines."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Translate, then parse."""
        return super().parse_args(ctx, modern(args))


def _option(help_text: str, *names: str, least: int | None = None) -> Any:
    return typer.Option(*names, help=help_text, show_default=False, min=least)


@flags("train", command_class=TrainCommand)
def train(
    console: Console,
    settings: dict[str, Any],
    network: Annotated[
        str, typer.Argument(metavar="NETWORK", help="Registry name, file.py:factory or package.module:factory.")
    ] = "convselfattn",
    data: Annotated[
        str | None,
        _option(
            "Folder with train/ and val/ (by class, or tar shards), digits, scenes or animals; default: the network's."
        ),
    ] = None,
    recipe: Annotated[
        str | None, _option("imagenet, small, animals, scenes or a YAML file; default: by the data and the input size.")
    ] = None,
    output: Annotated[
        Path | None,
        _option("Folder for checkpoint, weights and result; default deploy/NETWORK/train.", "--output", "-o"),
    ] = None,
    init: Annotated[
        Path | None, _option("Weights to start from, as far as they fit; default: from the seed alone.")
    ] = None,
    resume: Annotated[
        Path | None, _option("Checkpoint to go on from; default: last.ckpt of the output folder.")
    ] = None,
    evaluate_only: Annotated[
        bool, _option("Only evaluate on the held-out images what was trained.", "--evaluate-only")
    ] = False,
    qat: Annotated[
        bool, _option("Fine-tune the INT8 graph of the workspace (recipe qat) instead of training.", "--qat")
    ] = False,
    epochs: Annotated[int | None, _option("Instead of the recipe's.", least=1)] = None,
    warmup_epochs: Annotated[float | None, _option("Instead of the recipe's.")] = None,
    lr: Annotated[float | None, _option("Peak learning rate instead of the recipe's.")] = None,
    min_lr: Annotated[float | None, _option("Last learning rate instead of the recipe's.")] = None,
    weight_decay: Annotated[float | None, _option("Instead of the recipe's.")] = None,
    drop_path: Annotated[float | None, _option("Instead of the recipe's.")] = None,
    layer_scale: Annotated[float | None, _option("Initial layer scale instead of the recipe's.")] = None,
    ema_decay: Annotated[float | None, _option("Instead of the recipe's.")] = None,
    ema_warmup: Annotated[
        bool | None,
        _option("Let the average's decay grow; default: where the training is short.", "--ema-warmup/--no-ema-warmup"),
    ] = None,
    ema: Annotated[
        bool | None, _option("Keep an average of the weights; default: as the recipe says.", "--ema/--no-ema")
    ] = None,
    batch_size: Annotated[
        int | None, _option("Images per device and step; default: by the global batch.", least=1)
    ] = None,
    accumulate: Annotated[int | None, _option("Steps per update; default: fits the global batch.", least=1)] = None,
    nodes: Annotated[int | None, _option("Machines; torchrun and SLURM are recognised.", least=1)] = None,
    devices: Annotated[int | None, _option("GPUs (or CPU processes) per machine; default: all GPUs.", least=1)] = None,
    accelerator: Annotated[str, _option("auto, cpu or cuda.")] = "auto",
    amp: Annotated[bool, _option("bfloat16 mixed precision; default: no.", "--amp/--no-amp")] = False,
    sync_bn: Annotated[bool, _option("BatchNorm over all devices; default: yes.", "--sync-bn/--no-sync-bn")] = True,
    size: Annotated[str | None, _option("Input size, SIDE or HEIGHTxWIDTH; default: the network's.")] = None,
    class_map: Annotated[Path | None, _option("Text file: one class folder per line, in label order.")] = None,
    workers: Annotated[int | None, _option("Processes that decode images.", least=0)] = None,
    threads: Annotated[int | None, _option("CPU threads of PyTorch; default: the machine's cores.", least=1)] = None,
    seed: Annotated[int, _option("Seed of every random choice; default 0.", least=0)] = 0,
    evaluate_every: Annotated[int, _option("Epochs between evaluations; default 5.", least=1)] = 5,
    tensorboard: Annotated[bool, _option("Write the epochs' figures for TensorBoard, too.", "--tensorboard")] = False,
    dry_run: Annotated[bool, _option("Say how many updates it would be, and end.", "--dry-run")] = False,
    images: Annotated[int | None, _option("With --dry-run: for so many images, not those in --data.", least=1)] = None,
) -> None:
    """Train a network, or go on with a training.

    The recipe is data (see docs/train.md); flags replace its values. SIGTERM saves and ends; the same command again
    goes on from there. The options of the published command lines are understood.
    """
    _check_options(accelerator, images, dry_run)
    try:
        from csa_deploy.train.options import TrainOptions
        from csa_deploy.train.plan import plan
        from csa_deploy.train.run import train as run_training
    except ModuleNotFoundError as error:
        from csa_deploy.errors import EnvironmentLacksError
        from csa_deploy.installing import install_command

        raise EnvironmentLacksError(f"training needs the package {error.name}", fix=install_command("train")) from error
    from csa_deploy.cli.session import default_root
    from csa_deploy.errors import UsageError
    from csa_deploy.setting_values import parse_size
    from csa_deploy.stages import Activity
    from csa_deploy.train.recipe import recipe_for
    from csa_deploy.train.subject import entry_of

    entry = entry_of(network)
    root = Path(settings.get("workspace") or default_root(network))
    if qat:
        from csa_deploy.train.qat import quantized, tunable, write_graphs

        ptq = quantized(root)
        entry = tunable(entry, ptq)
    try:
        sides = parse_size(size)
    except ValueError as error:
        raise UsageError(f"--size: {error}") from None
    shape = sides or entry.preprocessing.size
    overrides = {
        "epochs": epochs,
        "warmup_epochs": warmup_epochs,
        "lr": lr,
        "min_lr": min_lr,
        "weight_decay": weight_decay,
        "drop_path": drop_path,
        "layer_scale": layer_scale,
        "ema_decay": 0.0 if ema is False else ema_decay,
        "ema_warmup": ema_warmup,
    }
    options = TrainOptions(
        data=data or entry.dataset,
        output=output or root / ("qat" if qat else "train"),
        recipe=recipe_for(data or entry.dataset, shape, recipe, overrides, qat=qat, average=bool(ema)),
        seed=seed,
        size=sides,
        batch_size=batch_size,
        accumulate=accumulate,
        accelerator=accelerator,
        devices=devices,
        nodes=nodes,
        amp=amp,
        sync_bn=sync_bn,
        workers=workers,
        threads=threads,
        evaluate_every=evaluate_every,
        init=init,
        resume=resume,
        class_map=class_map,
        evaluate_only=evaluate_only,
        tensorboard=tensorboard,
    )
    if os.environ.get("LOCAL_RANK", "0") != "0":
        console.answer.elsewhere()  # the first process of a machine speaks for all
    if dry_run:
        _show_plan(plan(options, entry.preprocessing, images), console)
        return
    stage = Activity("train", f"training of {entry.name}")
    with console.watching() as watcher:
        watcher.started(stage)
        result = run_training(
            entry,
            options,
            lambda done, total: watcher.progress(stage, done, total),
            lambda summary: console.notice(_line(summary)),
        )
    if result is not None and evaluate_only:
        _show_evaluation(result, console)
    elif result is not None:
        _show(result, console)
        next_step = _deployment(network, options, result)
        if qat and result.finished:
            graphs = write_graphs(ptq, result.weights[result.best], options.output, entry.name.removesuffix("-qat"))
            console.answer.add({"graphs": {name: str(path) for name, path in graphs.items()}})
            console.show(f"  graphs: {', '.join(str(path) for path in graphs.values())}")
            next_step = ["csa-deploy", "verify", network, str(graphs["int8"])]
        if result.finished:
            console.answer.add({"next": next_step})
            console.out.print(f"  next: {shlex.join(next_step)}", markup=False, soft_wrap=True)


def _check_options(accelerator: str, images: int | None, dry_run: bool) -> None:
    if images is not None and not dry_run:
        raise typer.BadParameter("--images belongs to --dry-run")
    if accelerator not in ("auto", "cpu", "cuda"):
        raise typer.BadParameter(f"--accelerator {accelerator}: no such accelerator; use auto, cpu or cuda")


def _deployment(network: str, options: TrainOptions, result: TrainResult) -> list[str]:
    """The command that deploys what was trained, and judges it on the held-out images."""
    weights = ["--checkpoint", str(result.weights[result.best])]
    command = ["csa-deploy", "run", network, *weights, "--data", options.data]
    return command + (["--size", "x".join(map(str, options.size))] if options.size else [])


def _show_plan(plan: TrainPlan, console: Console) -> None:
    console.answer.add(asdict(plan))
    console.show(plan.text)
    if plan.warning:
        console.notice(plan.warning)


def _line(summary: EpochSummary) -> str:
    parts = [
        f"epoch {summary.epoch} of {summary.epochs}",
        f"loss {summary.loss:.4f}",
        f"lr {summary.lr:.2e}",
        f"{summary.images_per_second:.0f} images/s",
        f"{100 * summary.waiting:.0f} % waiting for images",
    ]
    return ", ".join([*parts, *(_accuracy(name, accuracy) for name, accuracy in summary.accuracy.items())])


def _accuracy(name: str, accuracy: Score) -> str:
    shares = [f"{_FIGURES.get(key, key)} {100 * share:.2f} %" for key, share in accuracy.shares.items()]
    return f"{name}: {', '.join(shares)} of {accuracy.samples}"


def _show_evaluation(result: TrainResult, console: Console) -> None:
    console.event("evaluated", **result.evaluation())
    console.answer.add(result.evaluation())
    console.show(f"{result.network} on {result.data}: evaluated as it is after {result.updates} updates")
    for line in (*(_accuracy(name, accuracy) for name, accuracy in result.accuracy.items()), *result.not_done):
        console.show(f"  {line}")


def _show(result: TrainResult, console: Console) -> None:
    console.event("trained", **result.to_json(), measured=result.measured)
    paths = {name: str(path) for name, path in result.weights.items()}
    console.answer.add({**result.to_json(), "weights": paths, "measured": result.measured})
    state = "finished" if result.finished else "stopped; the same command goes on from here"
    console.show(f"{result.network} on {result.data}: {result.updates} of {result.total} updates, {state}")
    for name, accuracy in result.accuracy.items():
        console.show(f"  {_accuracy(name, accuracy)}")
    if result.unreadable:
        console.show(f"  {len(result.unreadable)} unreadable images, replaced by their neighbours:")
        for name, reason in sorted(result.unreadable.items()):
            console.show(f"    {name}: {reason}")
    for note in result.not_done:
        console.show(f"  {note}")
    console.show(f"  weights: {', '.join(str(path) for path in result.weights.values())}")
    console.out.print(f"  to deploy: {result.weights[result.best].name}, {_why(result)}", markup=False, soft_wrap=True)
    if result.measured["seconds"]:
        console.show(f"  {result.measured['images_per_second']:.0f} images/s, {result.measured['seconds']:.0f} s")


def _why(result: TrainResult) -> str:
    """Why these weights are the ones to deploy."""
    if result.average is None:
        return "the weights as they are; the recipe keeps no average"
    said = "the average of the weights" if result.best == "model_ema" else "the weights as they are"
    from csa_deploy.train.average import LEFT

    if not result.accuracy:
        return f"{said}; not evaluated"
    better, other = (result.accuracy[name].right for name in sorted(result.accuracy, key=lambda n: n != result.best))
    said += f": {better}, the other {other}"
    said += "; chosen on these images, so other images tell its accuracy" if better != other else ""
    if result.average.first_share > LEFT:
        said += f" (the average still holds {100 * result.average.first_share:.0f} % of the first update: too short)"
    return said
