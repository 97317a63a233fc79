"""Tensors in files: safetensors with a header of the kit's own and checksums."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .errors import BmnasError, in_line, near_miss, quoted
from .reading import parse_json, require_file
from .storage import atomic_write

_UNCHANGED = "that of the saved values: the file was changed, or is damaged"
#: The types of tensors in a safetensors file, by its names for them.
_DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16,
    "I32": torch.int32, "I64": torch.int64, "F16": torch.float16, "BF16": torch.bfloat16,
    "F32": torch.float32, "F64": torch.float64, "C64": torch.complex64,
}  # fmt: skip


def write_tensors(
    path: str | os.PathLike, tensors: dict[str, torch.Tensor], header: dict[str, object]
) -> None:
    """Write tensors as safetensors, whole or not at all, with a JSON header and checksums.

    The checksum of each tensor is added to the header as its field ``sha256``, and the checksum of
    the header's text lies beside it. Raises :class:`FileError` as
    :func:`~bmnas_core.storage.atomic_write`.
    """
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    checksums = {name: tensor_hash(tensor) for name, tensor in tensors.items()}
    text = json.dumps({**header, "sha256": checksums}, ensure_ascii=False)
    with atomic_write(path) as beside:
        try:
            save_file(tensors, beside, {"bmnas": text, "sha256": _text_hash(text)})
        except SafetensorError as error:  # of the system's, whose number it says
            number = os.name == "posix" and re.search(r"os error (\d+)", str(error))
            raise OSError(os.strerror(int(number[1])) if number else in_line(error)) from None


def read_tensors(
    path: str | os.PathLike,
    format: str,
    refused: type[BmnasError],
    what: str,
    check: Callable[[dict, dict[str, torch.Tensor]], object] | None = None,
) -> tuple[object, dict[str, torch.Tensor]]:
    """Header and tensors that :func:`write_tensors` wrote in ``format``.

    The header is read first, then ``check(header, described)`` is called, and only then are the
    tensors read, each with its checksum. ``described`` are tensors with the names, shapes and types
    in the file, but without values (on the device "meta"). So ``check`` can refuse a header before
    anything is built at a size that it claims. A :class:`BmnasError` that it raises becomes
    ``refused`` and names the file; so does Python's own error at a field that is missing or of
    another type. What it returns is returned in place of the header, unless it is None.

    Raises ``refused`` for a file that is missing, damaged, changed or not a ``what``.
    """
    try:
        require_file(path)
        with safe_open(path, "pt") as file:
            header, checksums = _read_header(path, file.metadata() or {}, format, refused)
            described = {name: _described(file.get_slice(name)) for name in checksums}
            if set(file.keys()) != described.keys():
                raise refused(path, "other tensors than were saved", _UNCHANGED)
            found = _run_check(check, header, described) if check else None
            tensors = {}
            for name, checksum in checksums.items():
                tensor = file.get_tensor(name)
                if tensor_hash(tensor) != checksum:
                    raise refused(path, f"another checksum of tensor {name!r}", _UNCHANGED)
                tensors[name] = tensor.clone()  # a copy; that one is part of the open file
    except refused as error:
        raise refused(error if str(error).startswith(str(path)) else f"{path}: {error}") from None
    except BmnasError as error:
        raise refused(f"{path}: {error}") from None
    except (OSError, SafetensorError, TypeError, ValueError, RuntimeError) as error:
        raise refused(f"{path}: found no {what} ({in_line(error)})") from None
    return (header if found is None else found), tensors


def _read_header(
    path: str | os.PathLike, metadata: dict[str, str], format: str, refused: type[BmnasError]
) -> tuple[dict, dict[str, str]]:
    """The header, and the checksum of each tensor."""
    text = metadata.get("bmnas", "{}")
    header = parse_json(text, refused, path)
    found = header.get("format") if isinstance(header, dict) else header
    if found != format:
        raise refused(path, f"format {quoted(found)}", repr(format))
    checksums = header.pop("sha256", None)
    if metadata.get("sha256") != _text_hash(text) or not isinstance(checksums, dict):
        raise refused(path, "another checksum of its header", _UNCHANGED)
    return header, checksums


def _described(part) -> torch.Tensor:
    """A tensor of a file, as safetensors' ``get_slice`` gives it, without its values."""
    dtype = _DTYPES.get(part.get_dtype())
    if dtype is None:
        raise ValueError(f"tensors of type {part.get_dtype()}")
    return torch.empty(part.get_shape(), dtype=dtype, device="meta")


def _run_check(check: Callable, header: dict, described: dict[str, torch.Tensor]) -> object:
    try:
        return check(header, described)
    except BmnasError:
        raise
    except KeyError as error:
        raise BmnasError("header", f"no {error}", "all that was saved") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise BmnasError("header", in_line(error), "what was saved") from None


def check_tensors(
    found: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    refused: type[BmnasError],
    optional: tuple[str, ...] = (),
) -> None:
    """Raise ``refused``, by name, unless ``found`` has the expected names, shapes and types.

    Those whose names begin with one of ``optional`` may be missing.
    """

    def kind(tensor: torch.Tensor) -> str:
        return f"shape {tuple(tensor.shape)} of {tensor.dtype}"

    for name in [*expected, *found]:
        place = f"tensor {name!r}"
        if name not in expected:
            hint = near_miss(name, expected)
            raise refused(place, f"one that is not expected{hint}", "those that are")
        if name not in found and not name.startswith(optional):
            raise refused(place, "nothing", kind(expected[name]))
        if name in found and kind(found[name]) != kind(expected[name]):
            raise refused(place, kind(found[name]), kind(expected[name]))


def _text_hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def tensor_hash(tensor: torch.Tensor) -> str:
    """Hash of a tensor's shape, type and values."""
    digest = hashlib.sha256(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
