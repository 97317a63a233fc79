"""The ``bmnas`` command: run notebooks, draw genotypes, look after data sets.

What a user gave wrongly is one ``error: …`` line on stderr and exit code 2; a notebook that fails
or data that are not right, 1; Ctrl-C, 130.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

#: How many problems of a data set are listed; thousands of files may be missing.
SHOWN = 10


class _Commands(TyperGroup):
    """Turns what a user can mend into one line and an exit code."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _fail("interrupted", 130)
        except (ValueError, OSError) as error:
            from ..errors import BmnasError
            from ..experiments.run import RunError

            known = isinstance(error, (BmnasError, OSError))
            if not known or isinstance(error, BrokenPipeError):
                raise
            _fail(error, 1 if isinstance(error, RunError) else 2)


class _RunCommand(TyperCommand):
    """Takes ``-p NAME VALUE``, repeated, as ``-p NAME=VALUE``.

    Typer has options that take two words and options that repeat, but none that do both.
    """

    def parse_args(self, ctx, args):
        rest, words = list(args), []
        while rest:
            words.append(rest.pop(0))
            if words[-1] == "-p" and len(rest) > 1 and "=" not in rest[0]:
                words.append(f"{rest.pop(0)}={rest.pop(0)}")
        return super().parse_args(ctx, words)


app = typer.Typer(
    cls=_Commands,
    help="Search, draw and run multimodal fusion networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data = typer.Typer(help="The data sets: where they are, whether they are right.")
app.add_typer(data, name="data", no_args_is_help=True)


def main() -> None:
    """Entry point of ``bmnas``."""
    app(prog_name="bmnas")


def _show_version(wanted: bool) -> None:
    if wanted:
        from ..config import __version__

        typer.echo(f"bmnas {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


NotebookFile = Annotated[Path, typer.Argument(metavar="NOTEBOOK", help="An .ipynb file.")]


@app.command(cls=_RunCommand)
def run(
    notebook: NotebookFile,
    parameters: Annotated[
        list[str] | None,
        typer.Option("-p", metavar="NAME VALUE", help="Set a parameter; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for what the run leaves.", show_default=False),
    ] = None,
    timeout: Annotated[
        int | None, typer.Option(metavar="SECONDS", min=1, help="The most one cell may take.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Run a notebook with parameters and keep what it finds.

    Writes the executed notebook, the same as HTML and its result to DIR (runs/NAME by default).
    `bmnas parameters NOTEBOOK` lists what can be set.
    """

    from .. import experiments

    values = experiments.parse_parameters(notebook, _pairs(parameters))
    folder = experiments.run(notebook, values, out, progress=not quiet, timeout=timeout)
    page = f"{notebook.stem}.html"
    for name in (notebook.name, page, *reversed(experiments.RESULT_FILES)):
        if (folder / name).exists():
            typer.echo(folder / name)
    if (folder / "result.json").exists():
        typer.echo("\n" + _result_table(experiments.load_result(folder)))


@app.command()
def parameters(notebook: NotebookFile) -> None:
    """List a notebook's parameters, their defaults and what they are."""
    from ..experiments.run import notebook_parameters

    rows = [
        (f"{p.name} = {p.default!r}", p.help)
        for p in notebook_parameters(notebook).values()
        if p.name != "out"
    ]
    typer.echo(_columns(rows) if rows else f"{notebook} has no parameters to set.")


@app.command("draw")
def draw_genotype(
    genotype: Annotated[Path, typer.Argument(metavar="GENOTYPE", help="A genotype.json.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="The picture; GENOTYPE's name otherwise."),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="Who lays it out: wasi (built in), or dot (graphviz's).")
    ] = "wasi",
) -> None:
    """Draw a genotype as a graph."""
    from .. import ops  # noqa: F401  (registers the operations a genotype may name)
    from ..draw import draw
    from ..errors import BmnasError
    from ..genotype import Genotype

    picture = draw(Genotype.load(genotype), engine=engine)
    path = out or genotype.with_suffix(".svg")
    if path.exists() and path.samefile(genotype):
        raise BmnasError(f"picture: found {path}, the genotype's own file; allowed: -o another one")
    typer.echo(picture.save(path))


@app.command("collect")
def collect_runs(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Write the table as CSV.")
    ] = None,
) -> None:
    """Put runs with several seeds into one table: mean and standard deviation."""
    from ..experiments.run import collect
    from ..storage import atomic_write

    table = collect(runs)
    if out is not None:
        with atomic_write(out) as beside:
            table.to_csv(beside, index=False, float_format="%.6g")
    rows = [("task", "rule", "network", "runs", "test", "parameters", "seconds")]
    for row in table.itertuples():
        spread = "" if math.isnan(row.std) else f" ± {row.std:.4f}"
        numbers = (f"{row.test:.4f}{spread}", f"{row.params:,.0f}", f"{row.seconds:.1f}")
        rows.append((row.task, row.rule, row.network, str(row.runs), *numbers))
    typer.echo(_columns(rows, "<<<>>>>"))


Rules = Annotated[
    list[str] | None, typer.Option("--rule", help="A rule to predict; may be repeated.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, …")]


@app.command("benchmark")
def build_benchmark(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task, such as digits.")],
    rule: Annotated[str, typer.Option(help="The rule to predict.")] = "sum",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, counted from 0.")] = 2,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="The table; the kit's own otherwise."),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Train only so many that lead so far.", show_default=False),
    ] = None,
    together: Annotated[
        int, typer.Option(min=1, help="How many seeds to train at once; on a GPU more are faster.")
    ] = 1,
    device: Device = "auto",
) -> None:
    """Train every architecture of one Cell and write the table; goes on where it was stopped.

    For digits that is 1,950 architectures, about 50 minutes a seed on one core.
    """
    from ..benchmark.tabular import TabularBenchmark, build
    from ..tasks import load_task
    from ..tasks.files import asset

    path = out or asset(f"{task}/benchmark_{rule}.parquet", missing_ok=True)
    task = load_task(task, rule=rule)
    build(task, path, range(seeds), device=device, together=together, top=top)
    typer.echo(f"{path}\n{TabularBenchmark(path=path)}")


@app.command("run_strategy")
def run_strategies(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task with a tabular benchmark.")],
    rules: Rules = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 10,
    first: Annotated[
        int, typer.Option(help="The first seed; 0 up made the benchmark, 100 up chose settings.")
    ] = 400,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy", help="A strategy; may be repeated. All otherwise.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="The table; assets/results/TASK_benchmark.csv otherwise.",
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Hold what searches find against the benchmark, for each rule and seed; write the table.

    Goes on where it was stopped; after a change of settings, begin another table (--out).
    """
    from ..benchmark.strategies import run_benchmark, summarize

    path = out or Path("assets/results") / f"{task}_benchmark.csv"
    span = range(first, first + seeds)
    table = run_benchmark(task, rules or ("sum", "same"), span, path, names=names, device=device)
    rows = [("rule", "strategy", "seeds", "rank", "worst", "top %", "regret", "tau", "seconds")]
    for row in summarize(table).itertuples():
        ranks = (f"{row.median_rank:g}", f"{row.worst_rank}", f"{row.median_percentile:.1f}")
        costs = (f"{x:.2f}" if x == x else "" for x in (row.regret, row.tau, row.seconds))
        rows.append((row.rule, row.strategy, str(row.seeds), *ranks, *costs))
    typer.echo(f"{path}\n\n{_columns(rows, '<<>>>>>>>')}")


@app.command("baselines")
def run_baselines(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task, such as avmnist.")],
    rules: Rules = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, counted from 0.")] = 5,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--baseline", help="A baseline; may be repeated. All otherwise.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="The table; assets/results/TASK_baselines.csv otherwise.",
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Let every baseline compete for each rule and seed; write the table and its picture.

    Goes on where it was stopped; after a change of settings or data, begin another table (--out).
    The picture stands beside the table, as SVG.
    """
    from ..baselines import run_table, summary
    from ..draw import draw_results

    path = out or Path("assets/results") / f"{task}_baselines.csv"
    table = run_table(
        task, rules or ("sum", "same"), range(seeds), path, names=names, device=device
    )
    found = summary(table)
    picture = draw_results(found).save(path.with_suffix(".svg"))
    rows = [("task", "rule", "network", "seeds", "test", "parameters", "search s", "training s")]
    for row in found.itertuples():
        spread = "" if math.isnan(row.std) else f" ± {row.std:.4f}"
        numbers = (f"{row.test:.4f}{spread}", f"{row.params:,}")
        costs = (f"{row.search_seconds:.1f}", f"{row.train_seconds:.1f}")
        rows.append((row.task, row.rule, row.network, str(row.seeds), *numbers, *costs))
    typer.echo(f"{path}\n{picture}\n\n{_columns(rows, '<<<>>>>>')}")


@app.command("backbone", cls=_RunCommand)
def train_one_backbone(
    task: Annotated[str, typer.Argument(metavar="TASK", help="mmimdb, ntu or egogesture.")],
    modality: Annotated[str, typer.Argument(metavar="MODALITY", help="Such as Video.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="The weights.")],
    options: Annotated[
        list[str] | None,
        typer.Option(
            "-p", metavar="NAME VALUE", help="An option of the task, such as data_root; repeated."
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights to start from: published, or ImageNet's."),
    ] = None,
    head: Annotated[
        bool, typer.Option(help="Whether to take the classifier of these weights too.")
    ] = True,
    epochs: Annotated[int | None, typer.Option(min=1, help="The task's own otherwise.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="The task's own otherwise.")] = None,
    micro_batch: Annotated[
        int | None, typer.Option(min=2, help="Samples at a time, where a batch is too large.")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Highest rate; the task's own otherwise.")
    ] = None,
    seed: int = 0,
    device: Device = "auto",
) -> None:
    """Train the backbone of one modality alone, and keep its weights after every epoch.

    It learns from the training split; what is shown is its score on validation.
    """
    from ..backbones.paper.checkpoints import check_target, load_checkpoint, save_checkpoint
    from ..tasks import load_task
    from ..train import TrainConfig, train_backbone

    task = load_task(task, **_task_options(task, _pairs(options)))
    backbone = task.modality(modality).backbone
    check_target(out)
    if weights:
        load_checkpoint(backbone, weights, head=head)

    def keep(record: dict) -> None:
        save_checkpoint(backbone, out)
        typer.echo(
            f"epoch {record['epoch']}: training loss {record['train_loss']:.4f}, validation "
            f"{task.metric} {record['validation_score']:.4f}, {record['seconds']:.0f} s"
        )

    config = TrainConfig(epochs=epochs, batch_size=batch_size, micro_batch=micro_batch, max_lr=lr)
    train_backbone(task, modality, config, seed=seed, device=device, on_epoch=keep)
    typer.echo(out)


@data.command("list")
def list_data() -> None:
    """Each data set: its name, state, licence, title and place."""
    rows = []
    for name, entry in _data_sets().items():
        rows.append((name, entry.state, entry.license, entry.title, str(entry.root)))
    typer.echo(_columns(rows))


TaskName = Annotated[str, typer.Argument(metavar="TASK", help="A name from `bmnas data list`.")]


@data.command("check")
def check_data(task: TaskName = "") -> None:
    """Check the files of TASK, or of all; exits with 1 if any is missing or not right."""
    wrong = False
    for name, entry in _data_sets(task).items():
        problems = entry.check()
        wrong = wrong or bool(problems)
        lines = problems[:SHOWN] or ["all files are right"]
        if len(problems) > SHOWN:
            lines.append(f"… and {len(problems) - SHOWN:,} more")
        typer.echo("\n".join(f"{name}: {line}" for line in lines))
    if wrong:
        raise typer.Exit(1)


@data.command("fetch")
def fetch_data(task: TaskName) -> None:
    """Download the files of TASK from where they were published."""
    (entry,) = _data_sets(task).values()
    if entry.embedded:
        typer.echo(f"{task}: embedded, nothing to fetch")
        return
    typer.echo(f"{task}: from {entry.source}")
    entry.fetch()
    typer.echo(f"{task}: in {entry.root}")


def _data_sets(task: str = "") -> Mapping:
    """The data sets by name, or only ``task``."""
    from ..errors import BmnasError
    from ..tasks import DATA_SETS

    if not task:
        return DATA_SETS
    if task not in DATA_SETS:
        close = difflib.get_close_matches(task, DATA_SETS, 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise BmnasError(f"task: found {task!r}{hint}; allowed: {', '.join(DATA_SETS)}")
    return {task: DATA_SETS[task]}


def _pairs(words: list[str] | None) -> list[tuple[str, str]]:
    """``NAME=VALUE`` words as pairs."""
    from ..experiments.run import ParameterError

    for word in words or ():
        if "=" not in word:
            raise ParameterError(f"parameter {word}: found no value; allowed: -p NAME VALUE")
    return [tuple(word.split("=", 1)) for word in words or ()]


def _task_options(task: str, pairs: list[tuple[str, str]]) -> dict[str, object]:
    """Options of a task as typed in a shell; unknown ones are for ``load_task`` to refuse."""
    from inspect import signature

    from ..experiments.run import Parameter
    from ..tasks import TASKS

    known = signature(TASKS[task]).parameters if task in TASKS else {}
    options = {}
    for name, text in pairs:
        as_text = name not in known or str(known[name].annotation).startswith("str ")
        options[name] = text if as_text else Parameter(name, known[name].default).parse(text)
    return options


def _result_table(result: dict) -> str:
    """The learned network and its baselines, best first."""
    from ..experiments.run import networks

    entries = sorted(networks(result).items(), key=lambda item: -item[1]["test"])
    rows = [("", f"test {result['metric']}", "parameters", "seconds")]
    rows += [
        (name, f"{e['test']:.4f}", f"{e['params']:,}", f"{e['seconds']:.1f}") for name, e in entries
    ]
    title = f"{result['task']}, rule {result['rule']}, seed {result['seed']}, {result['device']}"
    return f"{title}\n{_columns(rows, '<>>>')}"


def _columns(rows: list[tuple[str, ...]], align: str = "") -> str:
    """Rows as lines with their columns under each other; ``align`` is ``<`` or ``>`` for each."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    align = align or "<" * len(widths)
    return "\n".join(
        "  ".join(f"{cell:{a}{w}}" for cell, a, w in zip(row, align, widths, strict=True)).rstrip()
        for row in rows
    )


def _fail(message: object, code: int) -> NoReturn:
    typer.echo(f"error: {' '.join(str(message).split())}", err=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    main()
