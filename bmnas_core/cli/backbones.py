"""The command that trains a backbone alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import Device, out_option, pairs, repeated_option


def backbone(
    task: Annotated[str, typer.Argument(metavar="TASK", help="mmimdb, ntu or egogesture.")],
    modality: Annotated[str, typer.Argument(metavar="MODALITY", help="Such as Video.")],
    out: Annotated[Path, out_option("The weights.")],
    options: Annotated[
        list[str] | None,
        repeated_option("-p", "An option of the task, such as data_root", "NAME VALUE"),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights to start from: published, or ImageNet's."),
    ] = None,
    head: Annotated[
        bool, typer.Option(help="Whether to read the classifier of these weights too.")
    ] = True,
    epochs: Annotated[int | None, typer.Option(min=1, help="Defaults to the task's.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Defaults to the task's.")] = None,
    micro_batch: Annotated[
        int | None, typer.Option(min=2, help="Samples at a time, if a batch does not fit.")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Highest learning rate; defaults to the task's.")
    ] = None,
    seed: int = 0,
    device: Device = "auto",
) -> None:
    """Train the backbone of one modality alone, and keep its weights after every epoch.

    It learns from the training split; the score shown is on validation.
    """
    from ..backbones.paper.checkpoints import (
        CheckpointError,
        check_target,
        load_checkpoint,
        save_checkpoint,
    )
    from ..tasks import load_task
    from ..train import TrainConfig, train_backbone

    loaded = load_task(task, **_task_options(task, pairs(options)))
    model = loaded.modality(modality).backbone
    check_target(out)
    if weights and not hasattr(model, "classify"):
        kind = type(model).__name__
        raise CheckpointError(f"--weights: found {kind}, trained from scratch; allowed: no weights")
    if weights:
        load_checkpoint(model, weights, head=head)

    def keep(record: dict) -> None:
        save_checkpoint(model, out)
        typer.echo(
            f"epoch {record['epoch']}: training loss {record['train_loss']:.4f}, validation "
            f"{loaded.metric} {record['validation_score']:.4f}, {record['seconds']:.0f} s"
        )

    config = TrainConfig(epochs=epochs, batch_size=batch_size, micro_batch=micro_batch, max_lr=lr)
    train_backbone(loaded, modality, config, seed=seed, device=device, on_epoch=keep)
    typer.echo(out)


def _task_options(task: str, words: list[tuple[str, str]]) -> dict[str, object]:
    """Options of a task as typed in a shell; ``load_task`` refuses unknown ones."""
    from inspect import signature

    from ..experiments import Parameter
    from ..tasks import TASKS

    known = signature(TASKS[task]).parameters
    options = {}
    for name, text in words:
        as_text = name not in known or str(known[name].annotation).startswith("str ")
        options[name] = text if as_text else Parameter(name, known[name].default).parse(text)
    return options
