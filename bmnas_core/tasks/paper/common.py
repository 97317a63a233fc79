"""What the paper's three tasks share: where their files are, backbones, modalities."""

import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...backbones.backbone import Backbone
from ...backbones.paper.checkpoints import load_checkpoint
from ...errors import in_line, quoted
from ...reading import parse_json, read_bytes
from .. import files
from ..inputs import DataError, Inputs
from ..task import SPLITS, Modality, Split, TaskError

#: ImageNet's mean and standard deviation of red, green and blue in 0 … 1.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def folder_of(
    name: str, data_root: str | os.PathLike | None, sample: bool, make: Callable[..., None], *how
) -> Path:
    """``data_root``; by default the data set's folder, or the one of a sample written by ``make``.

    Raises TaskError for anything but a path.
    """
    if not isinstance(data_root, str | os.PathLike | None):
        raise TaskError("data_root", repr(data_root), "the path of a folder")
    if data_root is not None:
        return Path(data_root).expanduser()
    return files.cached_folder(name, make, *how) if sample else files.data_root() / name


def modalities_of(
    backbones: Mapping[str, Backbone],
    inputs: Mapping[str, Inputs],
    weights: Mapping[str, str | os.PathLike] | None,
    head: bool,
    pooling: str,
) -> tuple[Modality, ...]:
    """Modalities, after reading ``weights`` into their backbones, with their heads or without.

    Raises TaskError for weights of a modality that does not exist, else as ``load_checkpoint``.
    """
    if not isinstance(weights, Mapping | None):
        raise TaskError("weights", repr(weights), "a dict, modality → file")
    for name, path in (weights or {}).items():
        if name not in backbones:
            raise TaskError("weights", repr(name), ", ".join(backbones))
        load_checkpoint(backbones[name], path, head=head)
    return tuple(
        Modality.numbered(name, backbone, inputs[name], pooling=pooling)
        for name, backbone in backbones.items()
    )


def paired_splits(parts: Sequence[str], labels: Tensor | Sequence[int]) -> dict[str, Split]:
    """Splits from each item's split and label; both modalities have it under one number."""
    splits, labels = {}, torch.as_tensor(labels, dtype=torch.long)
    for name in SPLITS:
        items = torch.tensor([i for i, part in enumerate(parts) if part == name], dtype=torch.long)
        splits[name] = Split(name, items[:, None].expand(-1, 2), labels[items])
    return splits


#: Most pixels of a picture, before it is scaled.
MOST_PIXELS = 64_000_000
#: What begins each scan of a JPEG file, and how many there may be: all pixels are decoded in each.
SCAN, MOST_SCANS = b"\xff\xda", 100


def read_picture(
    path: Path, mode: str, size: tuple[int, int], box: Callable[[tuple], tuple] | None = None
) -> np.ndarray:
    """A JPEG file scaled to ``size``, (width, height): (height, width, colours) bytes.

    ``mode`` is "RGB" or "L"; ``box`` gives the part to scale, as Pillow has it, from the picture's
    size. No other decoder is asked, whatever is in the file. Raises DataError for a file that is
    missing or no JPEG, or of more than MOST_PIXELS.
    """
    pil = files.package("PIL.Image")
    try:
        content = read_bytes(path)
        if (scans := content.count(SCAN)) > MOST_SCANS:
            raise DataError(path, f"{scans:,} scans", f"{MOST_SCANS} at most")
        with pil.open(io.BytesIO(content), formats=("JPEG",)) as image:
            if math.prod(image.size) > MOST_PIXELS:
                raise DataError(path, f"{image.size} pixels", f"{MOST_PIXELS:,} at most")
            whole = image.convert(mode)
    except FileNotFoundError:
        raise DataError(f"{path}: missing; allowed: a file for each annotated frame") from None
    except pil.UnidentifiedImageError:  # its message is of an object in memory
        raise DataError(path, "no picture that can be decoded", "a JPEG file") from None
    except (OSError, SyntaxError, ValueError, pil.DecompressionBombError) as error:
        if isinstance(error, DataError):
            raise
        found = f"no picture that can be decoded ({in_line(error)})"
        raise DataError(path, found, "a JPEG file") from None
    scaled = whole.resize(size, pil.Resampling.BILINEAR, box and box(whole.size))
    return np.asarray(scaled).reshape(size[1], size[0], len(mode))


def look_at_jpeg(path: Path) -> None:
    """Raise DataError for a file that does not begin and end as a JPEG file does."""
    _, first, last = files.ends_of(path)
    if first[:3] != b"\xff\xd8\xff":
        raise DataError(path, f"a file that begins {quoted(first[:12])}", "a JPEG file")
    if b"\xff\xd9" not in last:
        raise DataError(path, "a JPEG file without its end", "a whole one")


def read_json(path: Path, most: int | None = None) -> object:
    """What a JSON file of at most so many bytes holds.

    Raises DataError for a file that cannot be read or is no JSON, and for a field that is there
    twice.
    """
    try:
        text = files.read_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: found no JSON ({in_line(error)})") from None
    return parse_json(text, DataError, path)
