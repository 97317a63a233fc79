"""Commands on notebooks, their results and the genotypes that they find."""

import warnings
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from .. import experiments
from ..draw import draw as draw_genotype
from ..errors import BmnasError
from ..genotype import Genotype, GenotypeError, read_text
from ..storage import is_stream
from .common import out_option, pairs, repeated, table

Notebook = Annotated[Path, Argument(metavar="NOTEBOOK", help="An .ipynb file.")]


def run(
    notebook: Notebook,
    parameters: Annotated[list[str] | None, repeated("-p", "Set a parameter", "NAME VALUE")] = None,
    out: Annotated[
        Path | None, Option(metavar="DIR", help="Folder for the results.", show_default=False)
    ] = None,
    timeout: Annotated[
        int | None, Option(metavar="SECONDS", min=1, help="The most that one cell may take.")
    ] = None,
    time_limit: Annotated[
        int | None, Option(metavar="SECONDS", min=1, help="The most that the whole run may take.")
    ] = None,
    resume: Annotated[
        bool,
        Option(
            "--resume",
            help="Continue the run in DIR that failed or was killed; give the same parameters.",
        ),
    ] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Run a notebook with parameters and keep its result.

    DIR (runs/NAME by default) gets the executed notebook, an HTML page of it and what the notebook
    saves. An earlier result there is kept until the new one is complete. The notebook runs on one
    thread unless OMP_NUM_THREADS says otherwise. `bmnas parameters NOTEBOOK` lists what can be set.
    """
    values = experiments.parse_parameters(notebook, pairs(parameters))
    limits = {"timeout": timeout, "time_limit": time_limit}
    with warnings.catch_warnings(record=True) as caught:
        how = {"progress": not quiet, "resume": resume, **limits}
        folder = experiments.run(notebook, values, out, **how)
    if kept := (experiments.load_run(folder) or {}).get("resumed"):
        typer.echo(f"resumed: {kept:.0f} s of earlier work were kept")
    page = f"{notebook.stem}.html"
    for name in (notebook.name, page, *reversed(experiments.RESULT_FILES)):
        if (folder / name).exists():
            typer.echo(folder / name)
    if (folder / "result.json").exists():
        result = experiments.load_result(folder)
        rows = [
            (n, f"{e['test']:.4f}", f"{e['params']:,}", "–" if kept else f"{e['seconds']:.1f}")
            for n, e in experiments.best_first(result)
        ]
        head = ("", f"test {result['metric']}", "parameters", "seconds")
        title = f"{experiments.run_title(result)}, {result['device']}"
        typer.echo(f"\n{title}\n{table(rows, head, numbers=3)}")
    kind = "warning" if (folder / page).exists() else "error"
    for warning in caught:
        typer.echo(f"{kind}: {' '.join(str(warning.message).split())}", err=True)
    if caught and kind == "error":
        raise typer.Exit(1)


def parameters(notebook: Notebook) -> None:
    """List a notebook's parameters, with their defaults and meanings."""
    found = [p for p in experiments.notebook_parameters(notebook).values() if p.name != "out"]
    rows = [(f"{p.name} = {p.default!r}", p.help) for p in found]
    typer.echo(table(rows) if rows else f"{notebook} has no parameters to set.")


def draw(
    genotype: Annotated[
        Path, Argument(metavar="GENOTYPE", help="A genotype.json, or what the released code logs.")
    ],
    features: Annotated[
        list[str] | None,
        repeated("--feature", "A feature's name, in order, if GENOTYPE is of the released code"),
    ] = None,
    out: Annotated[
        Path | None, out_option("The picture; by default, GENOTYPE's name with .svg.")
    ] = None,
    engine: Annotated[
        str, Option(help="The layout engine: wasi (built in) or dot (graphviz's program).")
    ] = "wasi",
) -> None:
    """Draw a genotype as a graph."""
    text, source = read_text(genotype), str(genotype)
    if features:
        found = Genotype.from_published(text, features, source)
    elif "Genotype(" in text:
        names = "--feature NAME for each of its input nodes"
        raise GenotypeError("features", "none for a genotype of the released code", names, source)
    else:
        found = Genotype.from_json(text, source)
    picture = draw_genotype(found, engine=engine)
    path = out or genotype.with_suffix(".svg")
    if path.exists() and path.samefile(genotype):
        raise BmnasError("picture", f"{path}, the genotype's own file", "-o another one")
    typer.echo(picture.save(path), err=is_stream(path))
