"""Commands on genotypes and trained networks: out of the kit, as source or as a program."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from ..errors import BmnasError
from ..genotype import Genotype
from ..storage import atomic_write, is_stream
from .common import out_option, pairs, repeated
from .tasks import _task_options


def export(
    network: Annotated[
        Path, Argument(metavar="NETWORK", help="A saved network .safetensors, or a genotype.json.")
    ],
    out: Annotated[Path, out_option("The file to write.")],
    source: Annotated[
        bool, Option("--source", help="Write one PyTorch module that needs torch alone.")
    ] = False,
    torch_export: Annotated[
        bool, Option("--torch-export", help="Write a torch.export program, .pt2.")
    ] = False,
    task: Annotated[
        str | None,
        Option(metavar="TASK", help="The task: of a genotype, or a network with backbones."),
    ] = None,
    options: Annotated[
        list[str] | None, repeated("-p", "An option of the task, such as rule", "NAME VALUE")
    ] = None,
) -> None:
    """Write a network so that it runs without the kit: as source, or with weights as a program.

    The source reads the weights of a saved network; a genotype has none, and no program.
    """
    from ..export import export_program
    from ..network_files import load_network
    from ..source import network_source
    from ..tasks import load_task

    if source == torch_export:
        raise BmnasError("bmnas export", "both or neither", "one of --source, --torch-export")
    if out.exists() and network.exists() and out.samefile(network):
        raise BmnasError("-o", f"{out}, the network's own file", "another one")
    stream = is_stream(out)  # then nothing else goes there
    loaded = None if task is None else load_task(task, **_task_options(task, pairs(options)))
    trained = network.suffix == ".safetensors"
    found = load_network(network, loaded) if trained else Genotype.load(network)
    if not trained and torch_export:
        raise BmnasError(network, "a genotype, which has no weights", "a network: .safetensors")
    if not trained and loaded is None:
        raise BmnasError("--task", "none for a genotype", "the task whose network it is")
    if torch_export:
        (example,), _ = export_program(found, out).example_inputs
        for name, part in sorted(example.items()):
            typer.echo(f"input {name}: (n, {', '.join(map(str, part.shape[1:]))})", err=stream)
    else:
        text = network_source(found) if trained else found.to_source(loaded)
        with atomic_write(out) as beside:
            beside.write_text(text, encoding="utf-8")
    typer.echo(out, err=stream)
