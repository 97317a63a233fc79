"""``egogesture``: EgoGesture's RGB and depth videos, from the data set's own frames."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...backbones.paper.resnext3d import ResNeXt3D
from ...config import SearchSettings, Settings
from ...errors import quoted, shortened
from ...runtime import seeded
from ..files import DATA_SETS, DataSet, package
from ..inputs import DataError, DataWarning, FileInputs, files_version, warn_skipped
from ..task import Split, Task, register_task
from .common import folder_of, modalities_of, read_json
from .samples import gestures as samples

SUBSETS = {"training": "train", "validation": "validation", "testing": "test"}
COLOURS = {"RGB": 3, "Depth": 1}

#: Subtracted from red, green and blue in 0 … 255, the first one also from depth. There is no
#: division, since the published checkpoints were trained without.
MEAN = (114.7748, 107.7354, 99.4750)

#: Side of a random crop relative to the frame's shorter side.
SCALES = tuple(2 ** (-k / 4) for k in range(5))

CLIP = re.compile(r"(?P<folder>(?P<subject>[^/]+)/[^/]+/Color/rgb\d+)(_\d+)?")

DATA = DataSet(
    name="egogesture",
    title="EgoGesture: 24,161 gestures in colour and depth",
    license="on request, for research",
    source="Zhang et al., NLPR, Chinese Academy of Sciences",
    folder="egogesture",
    read=lambda: egogesture(),
)
DATA_SETS.add(DATA.name, DATA)


@register_task("egogesture")
def egogesture(
    data_root: str | os.PathLike | None = None,
    sample: bool = False,
    annotation: str | os.PathLike | None = None,
    weights: dict[str, str | os.PathLike] | None = None,
) -> Task:
    """Hand gestures filmed from the wearer's eyes, RGB and depth (Zhang et al. 2018): 83 classes.

    Inputs are ``RGB: (3, 32, 112, 112)`` and ``Depth: (1, 32, 112, 112)``, see
    :class:`FrameReader`. The splits are cross-subject. Gestures without a folder of frames are left
    out with a warning. There are too many frames to check each of them, so a feature bank on disk
    does not notice when a frame is overwritten in place.

    Args:
        data_root: folder with ``SubjectNN/SceneM/{Color,Depth}/{rgb,depth}K/NNNNNN.jpg``; by
            default ``egogesture`` in the folder of data sets.
        sample: read 16 frames of 32×32, for small backbones that train on a laptop. Without
            ``data_root`` they show hands that the kit renders in this format, in 12 classes.
        annotation: JSON file of labels, subsets, first and last frames; by default the only
            ``*.json`` in ``data_root``.
        weights: modality → file of weights for its backbone; a backbone without has random ones.

    Raises:
        DataError: for files that are missing or damaged.
        CheckpointError: for weights that cannot be read or do not fit.
        TaskError: for weights of a modality that does not exist.
    """
    root = folder_of("egogesture", data_root, sample, samples.make)
    path = Path(annotation).expanduser() if annotation else _only_annotation(root)
    labels, found = read_annotation(path)
    _check_apart(path, found)
    gestures = _with_folders(root, path, found)
    scale = SAMPLE if sample else PAPER
    inputs = {name: _inputs(name, root, path, gestures, scale) for name in COLOURS}
    backbones = {}
    for name, colours in COLOURS.items():
        with seeded(0, "egogesture", name):
            backbones[name] = ResNeXt3D(len(labels), colours, **scale.backbone)
    splits = {}
    for subset, name in SUBSETS.items():
        items = [i for i, gesture in enumerate(gestures) if gesture.subset == subset]
        classes = [gestures[i].label for i in items]
        index = torch.tensor(items, dtype=torch.long)[:, None].expand(-1, len(COLOURS))
        splits[name] = Split(name, index, torch.tensor(classes, dtype=torch.long))
    return Task(
        "egogesture",
        None,
        len(labels),
        "accuracy",
        modalities_of(backbones, inputs, weights, pooling="time"),
        splits,
        scale.config,
        scale.search_config,
        {
            "root": str(root),
            "sample": sample,
            "labels": labels,
            "frames": scale.frames,
            "size": scale.size,
            "left out": len(found) - len(gestures),
        },
        {name: scale.backbone_config for name in COLOURS if scale.backbone_config},
        protocol="cross-subject",
    )


@dataclass(frozen=True)
class Scale:
    """How large the task is: number and side of the frames, backbones, settings."""

    frames: int
    size: int
    backbone: dict
    config: Settings
    search_config: SearchSettings
    backbone_config: Settings | None = None


PAPER = Scale(
    frames=32,
    size=112,
    backbone={},
    config=Settings(
        C=128, L=8, N=2, M=3, epochs=7, batch_size=72, dropout=0.0, max_lr=3e-3, min_lr=1e-6,
        weight_decay=1e-4, restart=5,
    ),
    search_config=SearchSettings(selection="successive_halving"),
)  # fmt: skip
SAMPLE = Scale(
    frames=16,
    size=32,
    backbone={"width": 8, "blocks": (1, 1, 1, 1), "cardinality": 4},
    config=Settings(
        C=48, L=8, N=2, M=3, epochs=15, batch_size=24, dropout=0.0, max_lr=3e-3, min_lr=1e-6,
        weight_decay=1e-4, restart=5,
    ),
    search_config=SearchSettings(epochs=8, selection="successive_halving"),
    backbone_config=Settings(epochs=20, batch_size=24, max_lr=1e-2, restart=20),
)  # fmt: skip


def _inputs(
    name: str, root: Path, path: Path, gestures: Sequence[Gesture], scale: Scale
) -> FileInputs:
    clips = tuple((gesture.folders[name], gesture.first, gesture.last) for gesture in gestures)
    read = FrameReader(root, clips, COLOURS[name], scale.frames, scale.size)
    folders = sorted({folder for folder, _, _ in clips})
    files = [path, *(root / folder for folder in folders)]
    names = tuple(f"{folder}, frames {first}…{last}" for folder, first, last in clips)
    return FileInputs(names, read, files_version(files, clips, scale.frames, scale.size))


@dataclass(frozen=True)
class FrameReader:
    """Item → frames of a gesture: (colours, frames, size, size), in 0 … 255 minus :data:`MEAN`.

    In evaluation these are the gesture's middle frames, scaled so that the shorter side is
    ``size``, and cropped to their centre. With a generator they start at a random frame and are all
    cropped to one random square, whose side is one of :data:`SCALES`. They are never mirrored,
    since gestures have directions. A gesture that is too short is repeated from its start.

    Attributes:
        clips: folder of frames relative to ``root``, first frame, last frame.
        colours: 3 for RGB, 1 for grey levels.
    """

    root: Path
    clips: tuple[tuple[str, int, int], ...]
    colours: int
    frames: int
    size: int

    def __call__(self, item: int, random: torch.Generator | None = None) -> Tensor:
        """Raises DataError for a frame that is missing or cannot be decoded, with its file."""
        folder, first, last = self.clips[item]
        n = last - first + 1
        start = max(0, n // 2 - self.frames // 2)
        crop = None
        if random is not None:
            start = int(torch.randint(max(0, n - self.frames) + 1, (), generator=random))
            scale = SCALES[int(torch.randint(len(SCALES), (), generator=random))]
            crop = scale, *torch.rand(2, generator=random).tolist()
        shown = min(n, self.frames)
        pixels = np.empty((shown, self.size, self.size, self.colours), np.uint8)
        for k in range(shown):
            path = self.root / folder / f"{first + start + k:06d}.jpg"
            pixels[k] = self._frame(path, crop)
        looped = torch.from_numpy(pixels)[torch.arange(self.frames) % shown]
        mean = torch.tensor(MEAN[: self.colours]).view(-1, 1, 1, 1)
        return looped.movedim(-1, 0).contiguous().float().sub_(mean)

    def _frame(self, path: Path, crop: tuple[float, float, float] | None) -> np.ndarray:
        """One frame as (size, size, colours) bytes."""
        pil = package("PIL.Image")
        try:
            with pil.open(path) as image:
                image = image.convert("RGB" if self.colours == 3 else "L")
        except FileNotFoundError:
            raise DataError(f"{path}: missing; allowed: a file for each annotated frame") from None
        except (OSError, SyntaxError, ValueError, pil.DecompressionBombError) as error:
            raise DataError(
                f"{path}: found no picture that can be decoded ({error}); allowed: a JPEG file"
            ) from None
        box = _random_box(*image.size, *crop) if crop else _centre_box(*image.size, self.size)
        scaled = image.resize((self.size, self.size), pil.Resampling.BILINEAR, box)
        return np.asarray(scaled).reshape(self.size, self.size, self.colours)


def _centre_box(width: int, height: int, size: int) -> tuple[float, float, float, float]:
    """What becomes the central size×size pixels of a frame whose shorter side is scaled to size.

    Sides and offsets are rounded as if the whole frame were scaled first and then cropped.
    """
    shorter = min(width, height)
    edges = []
    for side in (width, height):
        scaled = size * side // shorter
        offset = round((scaled - size) / 2)
        edges.append((offset * side / scaled, (offset + size) * side / scaled))
    (left, right), (top, bottom) = edges
    return left, top, right, bottom


def _random_box(
    width: int, height: int, scale: float, x: float, y: float
) -> tuple[int, int, int, int]:
    side = max(1, int(min(width, height) * scale))
    left, top = round(x * (width - side)), round(y * (height - side))
    return left, top, left + side, top + side


class Gesture(NamedTuple):
    """An entry of the annotation.

    Attributes:
        folders: modality → folder of frames, relative to the data root.
        label: number of the class.
        first, last: numbers of frames.
    """

    name: str
    subject: str
    folders: dict[str, str]
    subset: str
    label: int
    first: int
    last: int


def read_annotation(path: Path) -> tuple[list[str], list[Gesture]]:
    """Labels and gestures of an annotation file, in its order.

    ``{"labels": [names], "database": {"<colour folder>_<k>": {"subset": …, "annotations":
    {"label": …, "start_frame": …, "end_frame": …}}}}``. The first gesture of a folder may lack
    ``_<k>``, and frames may be text.

    Raises:
        DataError: for anything else, with the entry.
    """
    content = read_json(path)
    labels = _member(content, "labels", list, f"{path}")
    for i, label in enumerate(labels):
        if not isinstance(label, str) or label in labels[:i]:
            raise DataError(
                f"{path}: labels[{i}]: found {quoted(label)}; allowed: names, each once"
            )
    classes = {label: i for i, label in enumerate(labels)}
    gestures = []
    for name, entry in _member(content, "database", dict, f"{path}").items():
        place = f"{path}: {name!r}"
        clip = CLIP.fullmatch(name)
        if not clip:
            raise DataError(f"{place}: allowed: SubjectNN/SceneM/Color/rgbK or …/rgbK_<k>")
        subset = _member(entry, "subset", str, place)
        if subset not in SUBSETS:
            raise DataError(f"{place}: found subset {subset!r}; allowed: {', '.join(SUBSETS)}")
        about = _member(entry, "annotations", dict, place)
        label = _member(about, "label", str, place)
        if label not in classes:
            raise DataError(
                f"{place}: found label {label!r}; allowed: the {len(labels)} in 'labels'"
            )
        first, last = (_frame_number(about, k, place) for k in ("start_frame", "end_frame"))
        if first > last:
            raise DataError(f"{place}: found frames {first} to {last}; allowed: start to end")
        colour = clip["folder"]
        head, tail = colour.rsplit("/Color/rgb", 1)
        folders = {"RGB": colour, "Depth": f"{head}/Depth/depth{tail}"}
        gestures.append(
            Gesture(name, clip["subject"], folders, subset, classes[label], first, last)
        )
    return labels, gestures


def _member(found: object, key: str, kind: type, place: str):
    """``found[key]``, which must be of type ``kind``."""
    if not isinstance(found, dict) or key not in found:
        has = ", ".join(map(repr, found)) if isinstance(found, dict) else type(found).__name__
        has = shortened(has, 200) or "nothing"
        raise DataError(f"{place}: found {has}; allowed: an object with {key!r}")
    if not isinstance(found[key], kind):
        words = {list: "a list", dict: "an object", str: "a name"}
        raise DataError(f"{place}: {key}: found {quoted(found[key])}; allowed: {words[kind]}")
    return found[key]


def _frame_number(about: dict, key: str, place: str) -> int:
    found = about.get(key)
    try:
        number = float(found) if type(found) in (int, float, str) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not number.is_integer() or not 0 <= number < 1e6:
        raise DataError(
            f"{place}: found {key} {quoted(found)}; allowed: a frame's number, 0 to 999999"
        )
    return int(number)


def _only_annotation(root: Path) -> Path:
    layout = "SubjectNN/SceneM/{Color,Depth}/{rgb,depth}K/NNNNNN.jpg and one *.json beside them"
    if not root.is_dir():
        raise DataError(
            f"data of task 'egogesture': {root}: no such folder; looked for {layout}. Set "
            "BMNAS_DATA to the folder that holds 'egogesture', or pass data_root, or sample=True"
        )
    found = sorted(root.glob("*.json"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "no *.json"
        raise DataError(
            f"data of task 'egogesture': {root}: found {names}; looked for {layout}; pass "
            "annotation to choose a file"
        )
    return found[0]


def _check_apart(path: Path, gestures: Sequence[Gesture]) -> None:
    """Refuse frames that are in two subsets, and warn of subjects that are."""

    def place(gesture: Gesture) -> tuple[str, int]:
        return gesture.folders["RGB"], gesture.first

    for _, clips in groupby(sorted(gestures, key=place), key=lambda g: g.folders["RGB"]):
        furthest: dict[str, Gesture] = {}
        for clip in clips:
            for subset, other in furthest.items():
                if subset != clip.subset and clip.first <= other.last:
                    raise DataError(
                        f"{path}: {other.name!r} in {subset!r} and {clip.name!r} in "
                        f"{clip.subset!r} share frames {clip.first}…{min(clip.last, other.last)}; "
                        "allowed: each frame in one subset"
                    )
            if clip.subset not in furthest or clip.last > furthest[clip.subset].last:
                furthest[clip.subset] = clip
    subsets: dict[str, set[str]] = {}
    for gesture in gestures:
        subsets.setdefault(gesture.subject, set()).add(gesture.subset)
    shared = sorted(subject for subject, found in subsets.items() if len(found) > 1)
    if shared:
        warnings.warn(
            f"{path}: found subjects in more than one subset: {len(shared)}, such as {shared[0]}; "
            "in the data set's own lists there are none, and they make scores too high",
            DataWarning,
            stacklevel=3,
        )


def _with_folders(root: Path, path: Path, gestures: Sequence[Gesture]) -> list[Gesture]:
    """The gestures whose two folders exist; the others are left out with a warning."""
    exists = cache(lambda folder: (root / folder).is_dir())
    kept, reasons = [], []
    for gesture in gestures:
        lacking = [folder for folder in gesture.folders.values() if not exists(folder)]
        if lacking:
            reasons.append(f"{gesture.name}: no folder {' and '.join(lacking)}")
        else:
            kept.append(gesture)
    if not kept:
        what = f"none of the folders of the {len(gestures):,} gestures in {path}"
        such = f", such as {gestures[0].folders['RGB']}" if gestures else ""
        raise DataError(f"data of task 'egogesture': {root}: found {what}{such}")
    warn_skipped(f"gestures in {path}", reasons)
    return kept
