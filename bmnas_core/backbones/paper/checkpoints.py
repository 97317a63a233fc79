"""Backbones' weights in files: published ones, ImageNet's and our own."""

import os
import re
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from ...errors import BmnasError, check_type
from ...storage import check_writable
from ...tensor_files import read_tensors, write_tensors

FORMAT = "bmnas-backbone/1"
SUFFIXES = (".safetensors", ".pt", ".pth", ".tar", ".checkpoint")
SHOWN = 3
Tensors = dict[str, Tensor]


class CheckpointError(BmnasError):
    """A file without weights, or with weights that do not fit the backbone."""


def load_checkpoint(
    backbone: nn.Module, path: str | os.PathLike, *, head: bool = True
) -> list[str]:
    """Read weights into a backbone, any torch module: all of them, or none.

    The file is in safetensors format, or ``torch.save`` wrote it: a dictionary of tensors, or one
    with such a dictionary under ``"state_dict"`` or ``"model"``. Names may begin with ``module.``.
    No code in the file is run.
    The checksums of a file of :func:`save_checkpoint` are compared. Two kinds of weights fit:

    - weights under its own names, which for the paper's backbones are the published ones;
    - for :class:`VGG19` and :class:`InflatedResNet50`, ImageNet's under torchvision's names for
      ``vgg19`` and ``resnet50``. Their classifier is not read, so the head keeps its values. 2D
      kernels become 3D ones: they are repeated over time and divided by its length, so the
      features of a still video are those of the image, except near its ends.

    ``num_batches_tracked``, which nothing here uses, may be missing. With ``head=False`` the file's
    head, for example one trained for other classes, is not read. Returns the names that kept their
    values: the head's, or none.

    Raises CheckpointError for a file that cannot be read, holds no weights or does not fit. The
    backbone then stays as it was.
    """
    check_type(backbone, nn.Module, "backbone", CheckpointError, "a torch module")
    tensors, own = _read(path), backbone.state_dict()
    names = getattr(backbone, "imagenet", {})
    used = tuple(old for old, new in names.items() if new is not None)
    if any(name.startswith(used) for name in tensors):
        tensors, head = _from_imagenet(tensors, names, own), False
    in_head = tuple(f"{part}." for part in getattr(backbone, "head", ()))
    kept = [] if head else [name for name in own if name.startswith(in_head)]
    if not head:
        tensors = {name: t for name, t in tensors.items() if not name.startswith(in_head)}
    problem = f"{path}: found weights that do not fit this {type(backbone).__name__}"
    _check(tensors, own, kept, in_head, problem)
    backbone.load_state_dict(own | tensors)
    backbone._origin = Path(path).name
    return kept


def save_checkpoint(backbone: nn.Module, path: str | os.PathLike) -> None:
    """Write a backbone's weights under its own names, as safetensors, whole or not at all.

    Raises CheckpointError for a path that does not end in ``.safetensors``, FileError for one that
    cannot be written.
    """
    check_target(path)
    header = {"format": FORMAT, "backbone": type(backbone).__name__}
    write_tensors(path, backbone.state_dict(), header)


def check_target(path: str | os.PathLike) -> None:
    """Raise what :func:`save_checkpoint` would raise for this path, before a long training."""
    suffix = Path(path).suffix
    if suffix.lower() != ".safetensors":
        raise CheckpointError(path, f"suffix {suffix!r}", "'.safetensors'")
    check_writable(path)


def _check(tensors: Tensors, own: Tensors, kept: list[str], in_head: tuple[str, ...], problem: str):
    """Raise CheckpointError, beginning with ``problem``, unless ``tensors`` fill ``own``."""
    filled = {*tensors, *kept}
    missing = [n for n in own if n not in filled and not n.endswith("num_batches_tracked")]
    unexpected = [name for name in tensors if name not in own]
    misshapen = [n for n, t in tensors.items() if n in own and t.shape != own[n].shape]
    shapes = [f"{n}: {tuple(tensors[n].shape)} for {tuple(own[n].shape)}" for n in misshapen]
    lists = {"missing": missing, "unexpected": unexpected, "misshapen": shapes}
    found = [
        f"{len(names):,} {what} ({', '.join(names[:SHOWN])}{', …' * (len(names) > SHOWN)})"
        for what, names in lists.items()
        if names
    ]
    if found:
        only_head = not missing and not unexpected and all(n.startswith(in_head) for n in misshapen)
        remedy = "; head=False does not read the head" if only_head else ""
        raise CheckpointError(f"{problem}: {'; '.join(found)}{remedy}")


def _from_imagenet(tensors: Tensors, names: dict[str, str | None], own: Tensors) -> Tensors:
    """The tensors under our names, with kernels inflated if they are 3D in ``own``."""
    found = {}
    for name, tensor in tensors.items():
        old = next((old for old in names if name.startswith(old)), "")
        if (new := names.get(old, "")) is None:
            continue
        name = new + name.removeprefix(old)
        shape = own[name].shape if name in own else tensor.shape
        if len(shape) == 5 and tensor.dim() == 4 and shape[:2] + shape[3:] == tensor.shape:
            tensor = tensor.unsqueeze(2).expand(shape) / shape[2]
        found[name] = tensor
    return found


def _read(path: str | os.PathLike) -> Tensors:
    """A file's tensors by name, without wrapping and without ``module.``."""
    try:
        path = Path(path)
        path.open("rb").close()
    except (OSError, TypeError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path}: cannot be read ({why})") from None
    if path.suffix.lower() not in SUFFIXES:
        raise CheckpointError(path, f"suffix {path.suffix!r}", ", ".join(SUFFIXES))
    try:
        if path.suffix.lower() == ".safetensors":
            with safe_open(path, "pt") as file:
                ours = "sha256" in (file.metadata() or {})
            read = partial(read_tensors, format=FORMAT, refused=CheckpointError, what="weights")
            tensors = read(path)[1] if ours else load_file(path)
        else:
            tensors = torch.load(path, weights_only=True, map_location="cpu")
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        code = re.search(r"GLOBAL (\S+)", str(error))
        what = f"more than tensors ({code[1]})" if code else "no checkpoint, or a damaged one"
        allowed = "tensors by name in safetensors or by torch.save"
        raise CheckpointError(path, what, allowed) from None
    for wrapping in ("state_dict", "model"):
        if isinstance(tensors, dict) and isinstance(tensors.get(wrapping), dict):
            tensors = tensors[wrapping]
    if not isinstance(tensors, dict) or not tensors:
        found = "nothing" if tensors == {} else type(tensors).__name__
        raise CheckpointError(path, found, "tensors by name")
    for name, tensor in tensors.items():
        plain = isinstance(tensor, Tensor) and tensor.layout is torch.strided
        if not isinstance(name, str) or not plain or tensor.is_meta:
            allowed = "tensors by name, or those under 'state_dict' or 'model'"
            raise CheckpointError(path, f"{name!r}: {type(tensor).__name__}", allowed)
    prefix = "module." if all(name.startswith("module.") for name in tensors) else ""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
