"""Commands that take hours: the tabular benchmark, searches compared in it, and baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import Device, mean_and_std, out_option, repeated_option, table

Task = Annotated[str, typer.Argument(metavar="TASK", help="A task with rules, such as digits.")]
Rules = Annotated[
    list[str] | None, repeated_option("--rule", "A rule to predict (default: sum and same)")
]


def tabulate(
    task: Task,
    rule: Annotated[str, typer.Option(help="The rule to predict.")] = "sum",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, counted from 0.")] = 2,
    out: Annotated[Path | None, out_option("The table; the kit's own by default.")] = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Train only this many of the best so far.", show_default=False),
    ] = None,
    together: Annotated[
        int, typer.Option(min=1, help="How many seeds to train at once; on a GPU more are faster.")
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
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task with a tabular benchmark.")],
    rules: Rules = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 10,
    first: Annotated[
        int,
        typer.Option(
            help="The first seed. The table was made with seeds 0 to 19; the defaults were "
            "selected with seeds from 100."
        ),
    ] = 400,
    names: Annotated[
        list[str] | None, repeated_option("--strategy", "A strategy (default: all)")
    ] = None,
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
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, counted from 0.")] = 5,
    names: Annotated[
        list[str] | None, repeated_option("--baseline", "A baseline (default: all)")
    ] = None,
    out: Annotated[
        Path | None, out_option("The table; assets/results/TASK_baselines.csv by default.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Run all baselines for each rule and seed; write the table, and its chart beside it as SVG.

    A second run continues the first; after a change of settings or data, give another --out.
    """
    from ..baselines import run_baselines, summarize

    path = out or Path("assets/results") / f"{task}_baselines.csv"
    rules = rules or ("sum", "same")
    found = summarize(run_baselines(task, rules, range(seeds), path, names=names, device=device))
    chart = _save_chart(found, path.with_suffix(".svg"))
    rows = []
    for row in found.itertuples():
        costs = f"{row.search_seconds:.1f}", f"{row.train_seconds:.1f}"
        numbers = mean_and_std(row.test, row.std), f"{row.params:,}", *costs
        rows.append((row.task, row.rule, row.network, row.seeds, *numbers))
    head = ("task", "rule", "network", "seeds", "test", "parameters", "search s", "training s")
    typer.echo(f"{path}\n{chart}\n\n{table(rows, head, numbers=5)}")


def _save_chart(summary, path: Path) -> Path:
    """The chart of a summary, with the same bytes each time."""
    import matplotlib.pyplot as plt
    import numpy as np

    from ..draw import draw_results
    from ..storage import atomic_write

    figure = np.ravel(draw_results(summary))[0].figure
    with plt.style.context("bmnas_core.figures"), atomic_write(path) as beside:
        figure.savefig(beside, format="svg", metadata={"Date": None})
    plt.close(figure)
    return path
