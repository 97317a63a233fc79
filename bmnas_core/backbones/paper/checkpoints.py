"""Backbones' weights in files: published ones, ImageNet's and our own."""

import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from ...errors import BmnasError, check_type, quoted, shortened
from ...reading import require_file
from ...storage import check_writable
from ...tensor_files import read_tensors, write_tensors

FORMAT = "bmnas-backbone/1"
SUFFIXES = (".safetensors", ".pt", ".pth", ".tar", ".ckpt", ".bin", ".checkpoint")
SHOWN = 3
#: What a dictionary of tensors is usually called inside a file, the first of these that is there.
WRAPPINGS = ("state_dict", "model_state_dict", "model", "net")
#: Dictionaries are looked for so many levels deep.
DEEPEST = 4
#: What ``torch.compile``, FSDP and activation checkpointing put before the names of a module,
#: wherever the module is.
INSERTED = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
#: What a module of averaged weights (``torch.optim.swa_utils``) counts beside its weights.
COUNT = "n_averaged"
#: What may stand beside tensors, and is not read: numbers, texts, and NumPy's numbers.
BESIDE = (bool, int, float, str, np.generic, type(None))
#: Types of weights that are read as the backbone's own.
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_KINDS = [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?")]
_SCALAR = np.float64(0).__reduce__()[0]
_NAMES = [f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")]
#: What numbers of NumPy are pickled with, in its versions 1 and 2; ``weights_only`` allows none.
NUMPY_NUMBERS = [np.dtype, *_KINDS, *((_SCALAR, name) for name in _NAMES)]
Tensors = dict[str, Tensor]


class CheckpointError(BmnasError):
    """A file without weights, or with weights that do not fit the backbone."""


def load_checkpoint(
    backbone: nn.Module, path: str | os.PathLike, *, head: bool = True
) -> list[str]:
    """Read weights into a backbone, any torch module: all of them, or none.

    The file is in safetensors format, or ``torch.save`` wrote it: a dictionary of tensors, or one
    with such a dictionary inside, under ``"state_dict"`` or any name if it is the only one. Numbers
    and texts beside them are not read, and no code in the file is run. ``module.`` and
    ``_orig_mod.``, which wrapped and compiled modules put before names, are taken off, and so is
    anything else that is before all of them, such as Lightning's ``model.``. Weights in half
    precision, bfloat16 or float64 become the backbone's type. The checksums of a file of
    :func:`save_checkpoint` are compared. Two kinds of weights fit:

    - weights under its own names, which for the paper's backbones are the published ones;
    - for :class:`VGG19` and :class:`InflatedResNet50`, ImageNet's under torchvision's names for
      ``vgg19`` and ``resnet50``. Their classifier is not read, so the head keeps its values. 2D
      kernels become 3D ones: they are repeated over time and divided by its length, so the
      features of a still video are those of the image, except near its ends.

    ``num_batches_tracked``, which nothing here uses, may be missing. With ``head=False`` the file's
    head, for example one trained for other classes, is not read. Returns the names that kept their
    values: the head's, or none.

    Raises CheckpointError for a file that cannot be read, holds no weights or does not fit, and for
    weights that are integers or of 8 bits, not finite in the backbone's type, or negative variances
    of BatchNorm. The backbone then stays as it was.
    """
    check_type(backbone, nn.Module, "backbone", CheckpointError, "a torch module")
    backbone = _unwrapped(backbone)
    state = backbone.state_dict()
    tensors, names_of = _read(path), _without_prefixes(state)
    own = {name: state[old] for name, old in names_of.items()}
    names = getattr(backbone, "imagenet", {})
    used = tuple(old for old, new in names.items() if new is not None)
    tensors = _without_common(tensors, (*own, *used))
    if any(name.startswith(used) for name in tensors):
        tensors, head = _from_imagenet(tensors, names, own), False
    in_head = tuple(f"{part}." for part in getattr(backbone, "head", ()))
    kept = [] if head else [name for name in own if name.startswith(in_head)]
    if not head:
        tensors = {name: t for name, t in tensors.items() if not name.startswith(in_head)}
    problem = f"{path}: found weights that do not fit this {type(backbone).__name__}"
    _check(tensors, own, kept, in_head, problem)
    tensors = {name: _like(own[name], tensor, path, name) for name, tensor in tensors.items()}
    backbone.load_state_dict(state | {names_of[name]: tensor for name, tensor in tensors.items()})
    backbone._origin = Path(path).name
    return kept


def save_checkpoint(backbone: nn.Module, path: str | os.PathLike) -> None:
    """Write a backbone's weights under its own names, as safetensors, whole or not at all.

    These are the names that it has when it is neither compiled nor wrapped.

    Raises CheckpointError for a path that does not end in ``.safetensors``, FileError for one that
    cannot be written.
    """
    check_target(path)
    backbone = _unwrapped(backbone)
    header = {"format": FORMAT, "backbone": type(backbone).__name__}
    state = backbone.state_dict()
    names = _without_prefixes(state)
    write_tensors(path, {name: state[old] for name, old in names.items()}, header)


def check_target(path: str | os.PathLike) -> None:
    """Raise what :func:`save_checkpoint` would raise for this path, before a long training."""
    suffix = Path(path).suffix
    if suffix.lower() != ".safetensors":
        raise CheckpointError(path, f"suffix {suffix!r}", "'.safetensors'")
    check_writable(path)


def _unwrapped(backbone: nn.Module) -> nn.Module:
    """The module inside those of ``torch.compile`` and of data parallelism."""
    wrappers = nn.DataParallel, nn.parallel.DistributedDataParallel
    while inner := getattr(backbone, "_orig_mod", None) or (
        backbone.module if isinstance(backbone, wrappers) else None
    ):
        backbone = inner
    return backbone


def _like(own: Tensor, tensor: Tensor, path: str | os.PathLike, name: str) -> Tensor:
    """A tensor in the type of ``own``, whose shape it has. Raises CheckpointError."""
    place = f"{path}: {shortened(name, 120)}"
    if name.endswith("num_batches_tracked") and (tensor == tensor.round()).all():
        tensor = tensor.nan_to_num(0, 0, 0).to(own.dtype)  # halved with the rest, perhaps too large
    if not own.is_floating_point():
        counts = not (tensor.is_floating_point() or tensor.is_complex() or tensor.is_quantized)
        if tensor.dtype != own.dtype and (own.is_complex() or not counts):
            raise CheckpointError(place, f"values of {tensor.dtype}", own.dtype)
        return tensor.to(own.dtype)
    if tensor.dtype not in FLOATS:
        allowed = f"weights of {', '.join(str(kind).removeprefix('torch.') for kind in FLOATS)}"
        raise CheckpointError(place, f"values of {tensor.dtype}", allowed)
    tensor = tensor.to(own.dtype)
    if not tensor.isfinite().all():
        found = "NaN" if tensor.isnan().any() else "infinity"
        raise CheckpointError(place, found, f"finite numbers in {own.dtype}")
    if name.endswith("running_var") and (tensor < 0).any():
        raise CheckpointError(place, f"a variance of {tensor.min():.3g}", "0 or more")
    return tensor


def _check(tensors: Tensors, own: Tensors, kept: list[str], in_head: tuple[str, ...], problem: str):
    """Raise CheckpointError, beginning with ``problem``, unless ``tensors`` fill ``own``."""
    filled = {*tensors, *kept}
    missing = [n for n in own if n not in filled and not n.endswith("num_batches_tracked")]
    unexpected = [name for name in tensors if name not in own]
    misshapen = [n for n, t in tensors.items() if n in own and t.shape != own[n].shape]
    shapes = [f"{n}: {tuple(tensors[n].shape)} for {tuple(own[n].shape)}" for n in misshapen]
    lists = {"missing": missing, "unexpected": unexpected, "misshapen": shapes}
    found = [
        f"{len(names):,} {what} ({shortened(', '.join(names[:SHOWN]), 160)}"
        f"{', …' * (len(names) > SHOWN)})"
        for what, names in lists.items()
        if names
    ]
    if found:
        wrong = (*missing, *unexpected, *misshapen)
        remedy = "; head=False does not read the head; in a shell -p head false"
        remedy *= all(name.startswith(in_head) for name in wrong)
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
            tensor = (tensor.unsqueeze(2).expand(shape) / shape[2]).to(tensor.dtype)
        found[name] = tensor
    return found


def _read(path: str | os.PathLike) -> Tensors:
    """A file's tensors by name, without wrapping and prefixes."""
    try:
        path = Path(path)
        require_file(path)
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
            found = read(path)[1] if ours else load_file(path)
        else:
            _refuse_compressed(path)
            with torch.serialization.safe_globals(NUMPY_NUMBERS):
                found = torch.load(path, weights_only=True, map_location="cpu")
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        code = re.search(r"GLOBAL (\S+)", str(error))
        code = code and shortened(code[1], 80)
        what = f"more than tensors ({code})" if code else "no checkpoint, or a damaged one"
        allowed = "tensors by name in safetensors or by torch.save"
        raise CheckpointError(path, what, allowed) from None
    tensors = _tensors_in(found, path)
    plain = _without_prefixes(tensors)
    if len(plain) < len(tensors) - (COUNT in tensors):
        raise CheckpointError(path, f"names with and without {INSERTED[0]}", "each name once")
    return {name: tensors[old] for name, old in plain.items()}


def _refuse_compressed(path: Path) -> None:
    """Refuse a zip file with parts that are compressed: ``torch.save`` makes none.

    A small one could fill all memory.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for part in archive.infolist():
                if part.compress_type != zipfile.ZIP_STORED:
                    raise CheckpointError(f"{path}: {part.filename}", "compressed", "as it is")


def _tensors_in(found: object, path: Path) -> Tensors:
    """The tensors by name that a file holds, or the one dictionary in it does."""
    if not isinstance(found, dict) or not found:
        kind = "nothing" if found == {} else type(found).__name__
        raise CheckpointError(path, kind, "tensors by name")
    inside = dict(_dictionaries(found, set()))
    known = [name for name in WRAPPINGS if name in inside]
    if len(inside) > 1 and not known:
        several = f"{len(inside)} dictionaries of tensors: {', '.join(map(quoted, inside))}"
        raise CheckpointError(path, shortened(several, 200), "one, or one called 'state_dict'")
    if inside:
        place = known[0] if known else next(iter(inside))
        path, found = f"{path}: {place}", inside[place]
    tensors = {}
    for name, tensor in found.items():
        plain = isinstance(tensor, Tensor) and tensor.layout is torch.strided
        if isinstance(name, str) and plain and not tensor.is_meta:
            tensors[name] = tensor
        elif not isinstance(name, str) or not isinstance(tensor, BESIDE):
            kind = type(tensor).__name__ + " without tensors" * isinstance(tensor, dict)
            raise CheckpointError(
                path, f"{quoted(name)}: {kind}", "tensors by name, or one dictionary of them"
            )
    if not tensors:
        what = f"no tensor in {quoted(list(found))}"
        raise CheckpointError(path, what, "tensors by name, or one dictionary of them")
    return tensors


def _dictionaries(
    found: dict, seen: set[int], within: str = "", depth: int = 0
) -> Iterator[tuple[str, dict]]:
    """Dictionaries of tensors inside ``found``, by where they are, such as ``"net.weights"``.

    Each once: one may be in many others. ``seen`` has the ids of those that were looked into.
    """
    for name, inner in found.items():
        new = isinstance(inner, dict) and id(inner) not in seen
        if isinstance(name, str) and new and depth < DEEPEST:
            seen.add(id(inner))
            if any(isinstance(value, Tensor) for value in inner.values()):
                yield within + name, inner
            else:
                yield from _dictionaries(inner, seen, f"{within}{name}.", depth + 1)


def _without_prefixes(names: Sequence[str]) -> dict[str, str]:
    """Names without what wrapped and compiled modules put before them → names as they are."""
    plain = {re.sub("|".join(map(re.escape, INSERTED)), "", name): name for name in names}
    while plain.keys() - {COUNT} and all(
        name.startswith("module.") for name in plain.keys() - {COUNT}
    ):
        plain.pop(COUNT, None)
        plain = {name.removeprefix("module."): old for name, old in plain.items()}
    return plain


def _without_common(tensors: Tensors, known: Sequence[str]) -> Tensors:
    """Tensors without what is before all their names, if none of these is or begins as a known."""
    common = os.path.commonprefix(list(tensors))
    common = common[: common.rfind(".") + 1]
    if not common or any(name.startswith(tuple(known)) for name in tensors):
        return tensors
    return {name.removeprefix(common): tensor for name, tensor in tensors.items()}
