"""Commands on tasks: their data sets, backbones, tabular benchmarks and baselines."""

from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from .. import tasks
from ..draw import draw_frontiers, draw_results
from ..errors import DataError
from ..experiments import Parameter
from ..experiments.report import mean_and_std
from ..storage import atomic_write, check_writable, is_stream
from ..tasks.files import asset, kit_file
from .common import Device, ParameterCommand, out_option, pairs, repeated, table, unwrapped

#: How many problems of a data set are listed; thousands of files may be missing.
SHOWN = 10

DataSetName = Annotated[
    str, Argument(metavar="TASK", help="A name from `bmnas data list`.", show_default=False)
]
Task = Annotated[str, Argument(metavar="TASK", help="A task with rules, such as digits.")]
Seeds = Annotated[int, Option(min=1, help="How many seeds, counted from 0.")]
Rules = Annotated[
    list[str] | None,
    repeated("--rule", "A rule to predict (default: sum and same, or none if TASK has no rules)"),
]

data = typer.Typer(help="The data sets: where they are, whether they are right.")


@data.command("list")
def list_all() -> None:
    """List each data set: its name, state, licence, title and place."""
    found = _data_sets().items()
    typer.echo(table((name, d.state, d.license, d.title, d.root) for name, d in found))


def check(
    task: DataSetName = "",
    options: Annotated[
        list[str] | None,
        repeated("-p", "An option of TASK, such as annotation or data_root", "NAME VALUE"),
    ] = None,
    deep: Annotated[bool, Option("--deep", help="Decode every file, in worker processes.")] = False,
    workers: Annotated[
        int | None, Option(min=0, help="How many with --deep; one per core if not given.")
    ] = None,
    every: Annotated[
        bool, Option("--all", help=f"List every problem, not only the first {SHOWN}.")
    ] = False,
) -> None:
    """Check the files of TASK, or of all; exits with 1 if any is missing or not right.

    Files with known checksums are read as a whole. Of others, names, sizes, first and last bytes
    are looked at, and what is in the middle only with --deep.
    """
    wrong = False
    if options and not task:
        raise DataError("-p", "an option", "one with TASK, whose option it is")
    if workers is not None and not deep:
        raise DataError("--workers", "a number of them", "one with --deep")
    for name, entry in _data_sets(task).items():
        words = _task_options(name, pairs(options)) if options else {}
        found = entry.examine(words, deep=deep, workers=workers)
        wrong = wrong or bool(found.problems)
        shown = found.problems if every else found.problems[:SHOWN]
        lines = found.notices + (shown or [str(found)])
        if left := len(found.problems) - len(shown):
            kinds = "; ".join(f"{n:,} × {kind}" for kind, n in found.kinds().items())
            lines += [f"… and {left:,} more, which --all lists; by kind: {kinds}"]
        typer.echo("\n".join(f"{name}: {line}" for line in lines))
    if wrong:
        raise typer.Exit(1)


data.command(cls=ParameterCommand, help=unwrapped(check))(check)


@data.command()
def fetch(task: DataSetName) -> None:
    """Download the files of TASK from where they were published."""
    (entry,) = _data_sets(task).values()
    if entry.embedded:
        typer.echo(f"{task}: embedded, nothing to fetch")
        return
    typer.echo(f"{task}: from {entry.source}")
    entry.fetch()
    typer.echo(f"{task}: in {entry.root}")


@data.command()
def describe(
    path: Annotated[Path, Argument(metavar="PATH", help="A folder or file of arrays.")],
) -> None:
    """Print what a task from the arrays in PATH would be: its features, splits and settings."""
    found = tasks.load_features(path)
    rows = [
        (modality, name, " × ".join(map(str, array.shape)), array.dtype)
        for modality, arrays in found["features"].items()
        for name, array in arrays.items()
    ]
    typer.echo(table(rows, ("modality", "feature", "samples × channels × …", "type")))
    if "labels" not in found:
        typer.echo(
            "\nno labels: a file labels.npy, or a table with a column label, would hold them"
        )
        return
    typer.echo(f"\n{tasks.Task.from_features(path.stem, **found)}")


def _data_sets(task: str = "") -> Mapping:
    """The data sets by name, or only ``task``."""
    return {task: tasks.DATA_SETS[task]} if task else tasks.DATA_SETS


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
    from ..train import TrainConfig, train_backbone

    words = _task_options(task, pairs(options))
    head = head and words.get("head", True)
    loaded = tasks.load_task(task, **words)
    model = loaded.modality(modality).backbone
    checkpoints.check_target(out)
    if weights and not hasattr(model, "classify"):
        found = f"{type(model).__name__}, trained from scratch"
        raise checkpoints.CheckpointError("--weights", found, "no weights")
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
    options = dict(words)
    for name, known in signature(tasks.TASKS[task]).parameters.items():
        if name in options and not str(known.annotation).startswith("str "):
            options[name] = Parameter(name, known.default).parse(options[name])
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
    sample: Annotated[
        int | None,
        Option(min=1, help="Train so many random architectures in place of all."),
    ] = None,
    together: Annotated[
        int, Option(min=1, help="How many seeds to train at once; on a GPU more are faster.")
    ] = 1,
    device: Device = "auto",
) -> None:
    """Train every architecture of one Cell and write the table; a second run continues the first.

    For digits under sum or same that is 1,950 architectures, about 50 minutes a seed on one core.
    Of several Cells, as under voice, only a sample can be trained.
    """
    from ..benchmark import TabularBenchmark, tabulate

    path = out or asset(f"{task}/benchmark_{rule}.parquet", missing_ok=True)
    loaded = tasks.load_task(task, rule=rule)
    how = {"device": device, "together": together, "sample": sample, "top": top}
    tabulate(loaded, path, range(seeds), **how)
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
    ] = 2100,
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
    task: Annotated[str, Argument(metavar="TASK", help="A task, such as digits or diabetes.")],
    rules: Rules = None,
    seeds: Seeds = 5,
    names: Annotated[list[str] | None, repeated("--baseline", "A baseline (default: all)")] = None,
    options: Annotated[
        list[str] | None, repeated("-p", "An option of the task, such as train_pairs", "NAME VALUE")
    ] = None,
    settings: Annotated[
        Path | None,
        Option(metavar="FILE", help="Settings to choose from: a JSON list, or a table of tried."),
    ] = None,
    out: Annotated[
        Path | None, out_option("The table; assets/results/TASK_baselines.csv by default.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Run all baselines for each rule and seed; write the table, and its chart beside it as SVG.

    With settings, such as the kit's own assets/results/settings.json, which is found from any
    folder, each baseline first chooses among them by validation; a table ending in _settings.csv
    keeps the scores, and a chart, _settings.svg, shows them against size and time. Given such a
    table, baselines have what was best for them there.
    A second run continues the first; after a change of settings or data, give another --out.
    """
    from ..baselines import (
        default_rules,
        read_settings,
        read_tried,
        run_baselines,
        summarize,
        tried_path,
    )

    path = out or Path("assets/results") / f"{task}_baselines.csv"
    how = {"names": names, "options": _task_options(task, pairs(options)), "device": device}
    if settings and not settings.exists():
        shipped = kit_file(settings.as_posix(), missing_ok=True)
        settings = shipped if shipped.is_file() else settings
    known = settings is not None and settings.suffix == ".csv"
    if settings:
        how["settings"] = read_tried(settings) if known else read_settings(settings)
    rules = rules or default_rules(task)
    found = summarize(run_baselines(task, rules, range(seeds), path, **how))
    charts = {path.with_suffix(".svg"): partial(draw_results, found)}
    if settings and not known:
        tried = tried_path(path)
        charts[tried.with_suffix(".svg")] = partial(draw_frontiers, read_tried(tried))
    for chart, draw in charts.items():
        _save_chart(chart, draw)
    rows = []
    for row in found.itertuples():
        costs = f"{row.search_seconds:.1f}", f"{row.train_seconds:.1f}"
        sizes = ("–" if size != size else f"{size:.0f}" for size in (row.C, row.L))
        numbers = f"{row.validation:.4f}", mean_and_std(row.test, row.std), f"{row.params:,}"
        variant = ", ".join(filter(None, (row.rule, row.options)))
        rows.append((row.task, variant, row.network, *sizes, row.seeds, *numbers, *costs))
    head = ("task", "rule", "network", "C", "L", "seeds", "validation", "test", "parameters")
    typer.echo("\n".join(map(str, [path, *charts])))
    typer.echo(f"\n{table(rows, (*head, 'search s', 'training s'), numbers=8)}")


def cross_validate(
    task: Annotated[str, Argument(metavar="TASK", help="A task, such as diabetes.")],
    folds: Annotated[int, Option(min=2, help="How many parts; each is the test split once.")] = 5,
    repeats: Annotated[int, Option(min=1, help="How often, each time with other folds.")] = 1,
    names: Annotated[
        list[str] | None, repeated("--baseline", "A baseline (default: the quick ones)")
    ] = None,
    options: Annotated[
        list[str] | None, repeated("-p", "An option of the task", "NAME VALUE")
    ] = None,
    seed: int = 0,
    keep: Annotated[
        Path | None, Option(metavar="DIR", help="Keeps each fold; a stopped run goes on from it.")
    ] = None,
    out: Annotated[
        Path | None, out_option("The table; assets/results/TASK_cross_validated.csv by default.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Search, train and test on each fold of TASK's samples, beside baselines; write the table.

    It has means with 95 % intervals, which allow for folds that share samples, and differences from
    BM-NAS on the same folds, as `bm.cross_validate(task).table` does.
    """
    from ..cross_validation import cross_validate

    path = out or Path("assets/results") / f"{task}_cross_validated.csv"
    loaded = tasks.load_task(task, **_task_options(task, pairs(options)))
    check_writable(path)
    how = {"baselines": names, "seed": seed, "device": device, "out": keep}
    found = cross_validate(loaded, folds, None, repeats, **how)
    run = {"task": task, "metric": loaded.metric, "folds": folds, "repeats": repeats}
    rows = found.table.assign(**run)[[*run, *found.table]]
    with atomic_write(path) as beside:
        rows.to_csv(beside, index=False, float_format="%.6g")
    typer.echo(f"{path}\n\n{found}", err=is_stream(path))


def _save_chart(path: Path, draw: Callable) -> None:
    import matplotlib.pyplot as plt
    import numpy as np

    figure = np.ravel(draw())[0].figure
    with plt.style.context("bmnas_core.figures"), atomic_write(path) as beside:
        figure.savefig(beside, format="svg", metadata={"Date": None})  # the same bytes each time
    plt.close(figure)
