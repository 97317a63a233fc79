"""Commands that take hours: backbones, the tabular benchmark, searches in it, baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from .common import Device, mean_and_std, out_option, pairs, repeated, table

Task = Annotated[str, Argument(metavar="TASK", help="A task with rules, such as digits.")]
Seeds = Annotated[int, Option(min=1, help="How many seeds, counted from 0.")]
Rules = Annotated[list[str] | None, repeated("--rule", "A rule to predict (default: sum and same)")]


def backbone(
    task: Annotated[str, Argument(metavar="TASK", help="mmimdb, ntu or egogesture.")],
    modality: Annotated[str, Argument(metavar="MODALITY", help="Such as Video.")],
    out: Annotated[Path, out_option("The weights.")],
    options: Annotated[
        list[str] | None, repeated("-p", "An option of the task, such as data_root", "NAME VALUE")
    ] = None,
    weights: Annotated[
        Path | None, Option(metavar="FILE", help="Weights to start from: published, or ImageNet's.")
    ] = None,
    head: Annotated[
        bool, Option(help="Whether to read the classifier of these weights too.")
    ] = True,
    epochs: Annotated[int | None, Option(min=1, help="Defaults to the task's.")] = None,
    batch_size: Annotated[int | None, Option(min=2, help="Defaults to the task's.")] = None,
    micro_batch: Annotated[
        int | None, Option(min=2, help="Samples at a time, if a batch does not fit.")
    ] = None,
    lr: Annotated[
        float | None, Option(help="Highest learning rate; defaults to the task's.")
    ] = None,
    seed: int = 0,
    device: Device = "auto",
) -> None:
    """Train the backbone of one modality alone, and keep its weights after every epoch.

    It learns from the training split; the score shown is on validation.
    """
    from ..backbones.paper import checkpoints
    from ..tasks import load_task
    from ..train import TrainConfig, train_backbone

    loaded = load_task(task, **_task_options(task, pairs(options)))
    model = loaded.modality(modality).backbone
    checkpoints.check_target(out)
    if weights and not hasattr(model, "classify"):
        found = f"--weights: found {type(model).__name__}, trained from scratch"
        raise checkpoints.CheckpointError(f"{found}; allowed: no weights")
    if weights:
        checkpoints.load_checkpoint(model, weights, head=head)

    def keep(record: dict) -> None:
        checkpoints.save_checkpoint(model, out)
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


def tabulate(
    task: Task,
    rule: Annotated[str, Option(help="The rule to predict.")] = "sum",
    seeds: Seeds = 2,
    out: Annotated[Path | None, out_option("The table; the kit's own by default.")] = None,
    top: Annotated[
        int | None,
        Option(min=1, help="Train only this many of the best so far.", show_default=False),
    ] = None,
    together: Annotated[
        int, Option(min=1, help="How many seeds to train at once; on a GPU more are faster.")
    ] = 1,
    device: Device = "auto",
) -> None:
    """Train every architecture of one Cell and write the table; a second run continues the first.

    For digits that is 1,950 architectures, about 50 minutes a seed on one core.
    """
    from ..benchmark import TabularBenchmark, tabulate
    from ..tasks import load_task
    from ..tasks.files import asset

    path = out or asset(f"{task}/benchmark_{rule}.parquet", missing_ok=True)
    loaded = load_task(task, rule=rule)
    tabulate(loaded, path, range(seeds), device=device, together=together, top=top)
    typer.echo(f"{path}\n{TabularBenchmark(path=path)}")


def benchmark(
    task: Annotated[str, Argument(metavar="TASK", help="A task with a tabular benchmark.")],
    rules: Rules = None,
    seeds: Annotated[int, Option(min=1, help="How many seeds.")] = 10,
    first: Annotated[
        int,
        Option(
            help="The first seed. The table was made with seeds 0 to 19; the defaults were "
            "selected with seeds from 100."
        ),
    ] = 400,
    names: Annotated[list[str] | None, repeated("--strategy", "A strategy (default: all)")] = None,
    out: Annotated[
        Path | None, out_option("The table; assets/results/TASK_benchmark.csv by default.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Rank what strategies find in the tabular benchmark, for each rule and seed; write the table.

    A second run continues the first; after a change of settings, give another --out.
    """
    from ..benchmark import run_benchmark, summarize

    path = out or Path("assets/results") / f"{task}_benchmark.csv"
    span = range(first, first + seeds)
    found = run_benchmark(task, rules or ("sum", "same"), span, path, names=names, device=device)
    rows = []
    for row in summarize(found).itertuples():
        ranks = f"{row.median_rank:g}", row.worst_rank, f"{row.median_percentile:.1f}"
        costs = (f"{x:.2f}" if x == x else "" for x in (row.regret, row.tau, row.seconds))
        rows.append((row.rule, row.strategy, row.seeds, *ranks, *costs))
    head = ("rule", "strategy", "seeds", "rank", "worst", "top %", "regret", "tau", "seconds")
    typer.echo(f"{path}\n\n{table(rows, head, numbers=7)}")


def baselines(
    task: Task,
    rules: Rules = None,
    seeds: Seeds = 5,
    names: Annotated[list[str] | None, repeated("--baseline", "A baseline (default: all)")] = None,
    out: Annotated[
        Path | None, out_option("The table; assets/results/TASK_baselines.csv by default.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Run all baselines for each rule and seed; write the table, and its chart beside it as SVG.

    A second run continues the first; after a change of settings or data, give another --out.
    """
    import matplotlib.pyplot as plt
    import numpy as np

    from ..baselines import run_baselines, summarize
    from ..draw import draw_results
    from ..storage import atomic_write

    path = out or Path("assets/results") / f"{task}_baselines.csv"
    rules = rules or ("sum", "same")
    found = summarize(run_baselines(task, rules, range(seeds), path, names=names, device=device))
    chart, figure = path.with_suffix(".svg"), np.ravel(draw_results(found))[0].figure
    with plt.style.context("bmnas_core.figures"), atomic_write(chart) as beside:
        figure.savefig(beside, format="svg", metadata={"Date": None})  # the same bytes each time
    plt.close(figure)
    rows = []
    for row in found.itertuples():
        costs = f"{row.search_seconds:.1f}", f"{row.train_seconds:.1f}"
        numbers = mean_and_std(row.test, row.std), f"{row.params:,}", *costs
        rows.append((row.task, row.rule, row.network, row.seeds, *numbers))
    head = ("task", "rule", "network", "seeds", "test", "parameters", "search s", "training s")
    typer.echo(f"{path}\n{chart}\n\n{table(rows, head, numbers=5)}")
