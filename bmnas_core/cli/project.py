"""Commands of the project "beat the default search"."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from ..errors import shortened
from .common import Device, out_option, table

app = typer.Typer(help='The project "beat the default search": its data, table and grades.')

Project = Annotated[Path, Argument(metavar="FOLDER", help="The folder of the project.")]
Rule = Annotated[str, Option(help="The rule to predict: same or sum.")]


@app.command()
def variant(
    folder: Project,
    rule: Rule = "same",
    seeds: Annotated[
        int, Option(min=2, max=1000, help="How many seeds to announce; they are drawn.")
    ] = 5,
    data_seed: Annotated[
        int | None, Option(help="Of the data, at least 2^40; drawn if not given. Keep it secret.")
    ] = None,
) -> None:
    """Make a variant of the task digits: other voices and images in each split, other pairs.

    Give the folder for_students to your students. Keep the folder lecturer.
    """
    from ..course.project import LECTURER, STUDENTS, make_variant

    made = make_variant(folder, rule, seeds, data_seed)
    typer.echo(f"{made / STUDENTS}: for your students\n{made / LECTURER}: keep this")


@app.command("table")
def table_of(
    folder: Project,
    seeds: Annotated[int, Option(min=2, help="How many seeds for each architecture.")] = 2,
    device: Device = "auto",
) -> None:
    """Train every architecture of a variant, and run the default search with its seeds.

    It takes most of an hour a seed on one core. A second run continues the first; two at once
    share the work.
    """
    from ..benchmark import TabularBenchmark
    from ..course.project import build_table

    path = build_table(folder, seeds, device)
    typer.echo(f"{path}\n{TabularBenchmark(path=path)}")


@app.command()
def check(
    folder: Annotated[Path, Argument(metavar="FOLDER", help="What you will hand in.")],
    project: Annotated[
        Path | None,
        Option(metavar="FOR_STUDENTS", help="The folder you were given; by default the kit's."),
    ] = None,
    rule: Rule = "same",
) -> None:
    """For students: whether a submission is complete, and can be read and scored."""
    from ..course.grading import check_submission

    found = check_submission(folder, project, rule)
    different = len({genotype.canonical() for genotype in found.values()})
    typer.echo(f"{folder}: complete, {len(found)} seeds, {different} different architectures")


@app.command()
def score(
    submissions: Annotated[
        Path, Argument(metavar="SUBMISSIONS", help="A folder with a folder for each student.")
    ],
    folder: Annotated[
        Path | None,
        Option("--project", metavar="FOLDER", help="A project; by default the kit's own table."),
    ] = None,
    rule: Rule = "same",
    out: Annotated[Path | None, out_option("Write the grades as .csv.")] = None,
) -> None:
    """Score submissions: a genotype for each announced seed, in files such as seed-2100.json.

    Files are read as genotypes, and nothing in them is run. A difference of regret below 0 is
    better than the default search with the same seeds; its interval is of 95 %.
    """
    from ..course.grading import score_submissions
    from ..experiments.collect import checked_suffix

    if out is not None:
        checked_suffix(out, ".csv")
    found = score_submissions(submissions, folder, rule)
    if out is not None:
        found.save(out)
    rows = [
        (
            shortened(row.student, 40), row.outcome, *_numbers(row.rank, row.regret),
            f"{row.difference:+.2f} ({row.low:+.2f} to {row.high:+.2f})" if row.regret >= 0 else "",
            shortened(row.remarks, 160),
        )
        for row in found.table.itertuples()
    ]  # fmt: skip
    mean = sum(found.default) / len(found.default)
    typer.echo(f"seeds {', '.join(map(str, found.seeds))}; default search: mean regret {mean:.2f}")
    head = ("student", "outcome", "mean rank", "mean regret", "difference", "remarks")
    typer.echo(f"\n{table(rows, head)}")


def _numbers(*values: float) -> list[str]:
    return [f"{value:.2f}" if value == value else "" for value in values]
