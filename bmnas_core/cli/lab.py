"""Commands that copy the kit's notebooks and open them in JupyterLab."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option
from typer.core import TyperCommand

from ..errors import FileError
from ..storage import atomic_write
from ..tasks.files import kit_file

Folder = Annotated[
    Path, Argument(metavar="DIR", file_okay=False, help="A folder, made if need be.")
]


def notebooks(
    folder: Folder,
    force: Annotated[bool, Option("--force", help="Replace notebooks that differ.")] = False,
) -> None:
    """Copy the kit's notebooks, and the glossary they link to, into DIR.

    If some are there already and differ, such as by your changes, nothing is copied.
    """
    differing = _differing(folder)
    if differing and not force:
        found = f"{_names(differing)}, not as in the kit"
        raise FileError(folder, found, "another folder, or --force to replace them")
    missing = _missing(folder)
    _copy([*differing, *missing], folder)
    copied = f"{len(_notebooks())} notebooks and a glossary"
    typer.echo(f"{folder}: {copied}; to open them: bmnas lab {folder}")


class LabCommand(TyperCommand):
    """Keeps what follows ``--`` for JupyterLab, in ``ctx.args``."""

    def parse_args(self, ctx, args):
        end = args.index("--") if "--" in args else len(args)
        parsed = super().parse_args(ctx, args[:end])
        ctx.args = args[end + 1 :]
        return parsed

    def collect_usage_pieces(self, ctx):
        return [*super().collect_usage_pieces(ctx), "[-- JUPYTERLAB OPTIONS]"]


def lab(ctx: typer.Context, folder: Folder = Path("bmnas-notebooks")) -> None:
    """Open the kit's notebooks in JupyterLab, on this machine only.

    Notebooks that DIR lacks are copied into it; those that are there stay as
    they are. Kernels use one thread unless OMP_NUM_THREADS says otherwise.
    What follows -- are options of `jupyter lab`.
    """
    _copy(_missing(folder), folder)
    if differing := _differing(folder):
        typer.echo(f"{folder}: as you left them: {_names(differing)}")
    _trust(_notebooks())
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    options = {
        "--ip": "127.0.0.1",
        "--ServerApp.root_dir": folder.resolve(),
        "--LabApp.default_url": f"/lab/tree/{_notebooks()[0].name}",
    }
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options["--ServerApp.allow_root"] = True
    given = {word.partition("=")[0] for word in ctx.args}  # JupyterLab takes an option only once
    ours = [f"{name}={value}" for name, value in options.items() if name not in given]

    from jupyterlab.labapp import LabApp

    LabApp.launch_instance([*ours, *ctx.args])


def _notebooks() -> list[Path]:
    """The kit's notebooks, in reading order."""
    return sorted(kit_file("notebooks").glob("*.ipynb"))


def _originals() -> list[Path]:
    """All that is copied: the notebooks, and what they link to."""
    return [*_notebooks(), *kit_file("notebooks").glob("*.md")]


def _missing(folder: Path) -> list[Path]:
    return [path for path in _originals() if not os.path.lexists(folder / path.name)]


def _differing(folder: Path) -> list[Path]:
    """The kit's notebooks that are in ``folder`` with other contents."""
    there = [path for path in _originals() if os.path.lexists(folder / path.name)]
    return [path for path in there if not _same(path, folder / path.name)]


def _same(original: Path, path: Path) -> bool:
    return path.is_file() and path.read_bytes() == original.read_bytes()


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(path.name for path in paths)


def _copy(paths: Iterable[Path], folder: Path) -> None:
    for path in paths:
        with atomic_write(folder / path.name) as beside:
            shutil.copyfile(path, beside)


def _trust(paths: Iterable[Path]) -> None:
    """Sign notebooks as they are, so that JupyterLab shows their pictures. Copies need no more."""
    import nbformat
    from nbformat.sign import NotebookNotary

    notary = NotebookNotary()
    for path in paths:
        notary.sign(nbformat.read(path, as_version=4))
