"""``egogesture``: EgoGesture's RGB and depth videos, from the data set's own frames."""

import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...backbones.paper.egogesture import ResNeXt3D
from ...config import SearchSettings, Settings
from ...errors import quoted, shortened
from ...runtime import seeded
from ..inputs import DataError, DataWarning, FileInputs, files_version, warn_skipped
from ..task import Task, register_task
from .common import (
    folder_of,
    look_at_jpeg,
    modalities_of,
    paired_splits,
    read_json,
    read_picture,
)
from .samples import gestures as samples

SUBSETS = {"training": "train", "validation": "validation", "testing": "test"}
COLOURS = {"RGB": 3, "Depth": 1}

#: Subtracted from red, green and blue in 0 … 255, the first one also from depth. There is no
#: division, since the published checkpoints were trained without.
MEAN = (114.7748, 107.7354, 99.4750)

#: Side of a random crop relative to the frame's shorter side.
SCALES = tuple(2 ** (-k / 4) for k in range(5))

PAPER = Settings(
    C=128, L=8, N=2, M=3, epochs=7, batch_size=72, dropout=0.0, max_lr=3e-3, min_lr=1e-6,
    weight_decay=1e-4, restart=5,
)  # fmt: skip
SAMPLE = replace(PAPER, C=48, epochs=15, batch_size=24)
#: How the sample's backbones are trained alone, and their sizes.
SAMPLE_BACKBONES = {
    name: Settings(epochs=20, batch_size=24, max_lr=1e-2, restart=20) for name in COLOURS
}
SAMPLE_SIZES = {"width": 8, "blocks": (1, 1, 1, 1), "cardinality": 4}

#: Neither a name that climbs out of the folder, nor one with a separator or control characters.
_NAME = r"(?!\.{1,2}/)[^/\\\0-\x1f]+"
CLIP = re.compile(rf"(?P<folder>(?P<subject>{_NAME})/{_NAME}/Color/rgb\d{{1,9}})(_\d+)?")


@register_task("egogesture")
def egogesture(
    data_root: str | os.PathLike | None = None,
    sample: bool = False,
    annotation: str | os.PathLike | None = None,
    weights: dict[str, str | os.PathLike] | None = None,
    head: bool = True,
) -> Task:
    """Hand gestures filmed from the wearer's eyes, RGB and depth (Zhang et al. 2018): 83 classes.

    Inputs are ``RGB: (3, 32, 112, 112)`` and ``Depth: (1, 32, 112, 112)``, see
    :class:`FrameReader`. The splits are cross-subject. Gestures without a folder of frames are left
    out with a warning. There are too many frames to check each of them, so a feature bank on disk
    does not notice when a frame is overwritten in place.

    Args:
        data_root: folder with ``SubjectNN/SceneM/{Color,Depth}/{rgb,depth}K/NNNNNN.jpg``, in it or
            in its folder ``images``; by default ``egogesture`` in the folder of data sets.
        sample: read 16 frames of 32×32, for small backbones that train on a laptop. Without
            ``data_root`` they show hands that the kit renders in this format, in 12 classes.
        annotation: JSON file of labels, subsets, first and last frames, perhaps in ``data_root``;
            by default the only ``*.json`` there.
        weights: modality → file of weights for its backbone; a backbone without has random ones.
        head: whether to read the classifiers of these weights, too; they may be of other classes.

    Raises DataError for files that are missing or damaged, CheckpointError or TaskError for weights
    that do not fit or have no modality.
    """
    root = folder_of("egogesture", data_root, sample, samples.make)
    path = Path(annotation).expanduser() if annotation else _only_annotation(root)
    path = root / path if (root / path).exists() and not path.exists() else path
    labels, found = read_annotation(path)
    _check_apart(path, found)
    folders = [gesture.folders["RGB"] for gesture in found]
    places = (place for place in (root, root / "images") for f in folders if (place / f).is_dir())
    root = next(places, root)
    gestures = _with_folders(root, path, found)
    frames, size, sizes = (16, 32, SAMPLE_SIZES) if sample else (32, 112, {})
    inputs, backbones = {}, {}
    for name, colours in COLOURS.items():
        clips = tuple((gesture.folders[name], gesture.first, gesture.last) for gesture in gestures)
        inputs[name] = FrameReader(root, clips, colours, frames, size).inputs(path)
        with seeded(0, "egogesture", name):
            backbones[name] = ResNeXt3D(len(labels), colours, **sizes)
    splits = paired_splits([SUBSETS[g.subset] for g in gestures], [g.label for g in gestures])
    notes = {"root": str(root), "sample": sample, "labels": labels, "frames": frames, "size": size}
    notes["left out"] = len(found) - len(gestures)
    modalities = modalities_of(backbones, inputs, weights, head, pooling="time")
    return Task(
        "egogesture", None, len(labels), "accuracy", modalities, splits,
        SAMPLE if sample else PAPER,
        SearchSettings(epochs=8 if sample else None, selection="successive_halving"),
        notes, SAMPLE_BACKBONES if sample else {}, protocol="cross-subject",
    )  # fmt: skip


@dataclass(frozen=True)
class FrameReader:
    """Item → frames of a gesture: (colours, frames, size, size), in 0 … 255 minus :data:`MEAN`.

    In evaluation these are the gesture's middle frames, scaled so that the shorter side is
    ``size``, and cropped to their centre. With a generator they start at a random frame and are all
    cropped to one random square, whose side is one of :data:`SCALES`. They are never mirrored,
    since gestures have directions. A gesture that is too short is repeated from its start.
    """

    root: Path
    clips: tuple[tuple[str, int, int], ...]  # folder relative to ``root``, first and last frame
    colours: int  # 3 for RGB, 1 for grey levels
    frames: int
    size: int

    def inputs(self, annotation: Path) -> FileInputs:
        files = [annotation, *(self.root / folder for folder in sorted({c[0] for c in self.clips}))]
        names = tuple(f"{folder}, frames {first}…{last}" for folder, first, last in self.clips)
        version = files_version(files, self.clips, self.frames, self.size)
        return FileInputs(names, self, version, self.look, self.decode)

    def look(self, item: int) -> None:
        """Raises DataError for frames without a file, and for ends that are no JPEG's."""
        folder, first, last = self.clips[item]
        place = self.root / folder
        there = _numbers_in(place)
        if missing := last - first + 1 - sum(first <= number <= last for number in there):
            one = next(number for number in range(first, last + 1) if number not in there)
            more = f" and {missing - 1:,} more" * (missing > 1)
            raise DataError(place, f"no {one:06d}.jpg{more}", f"frames {first} to {last}")
        for path in self._paths(item):
            look_at_jpeg(path)

    def decode(self, item: int) -> None:
        """Raises DataError for a frame of the whole gesture that cannot be decoded."""
        for path in self._paths(item):
            self._frame(path, None)

    def _paths(self, item: int, start: int = 0, most: int | None = None) -> Iterator[Path]:
        """The files of a gesture's frames, from the frame ``start`` of it on, ``most`` or all."""
        folder, first, last = self.clips[item]
        end = last + 1 if most is None else min(last + 1, first + start + most)
        return (self.root / folder / f"{number:06d}.jpg" for number in range(first + start, end))

    def __call__(self, item: int, random: torch.Generator | None = None) -> Tensor:
        """Raises DataError for a frame that is missing or cannot be decoded, with its file."""
        _, first, last = self.clips[item]
        n = last - first + 1
        start = max(0, n // 2 - self.frames // 2)
        crop = None
        if random is not None:
            start = int(torch.randint(max(0, n - self.frames) + 1, (), generator=random))
            scale = SCALES[int(torch.randint(len(SCALES), (), generator=random))]
            crop = scale, *torch.rand(2, generator=random).tolist()
        shown = [self._frame(path, crop) for path in self._paths(item, start, self.frames)]
        looped = torch.from_numpy(np.stack(shown))[torch.arange(self.frames) % len(shown)]
        mean = torch.tensor(MEAN[: self.colours]).view(-1, 1, 1, 1)
        return looped.movedim(-1, 0).contiguous().float().sub_(mean)

    def _frame(self, path: Path, crop: tuple[float, float, float] | None) -> np.ndarray:
        """One frame as (size, size, colours) bytes."""
        mode, size = "RGB" if self.colours == 3 else "L", (self.size, self.size)
        return read_picture(path, mode, size, lambda sides: _box(sides, self.size, crop))


def _numbers_in(folder: Path) -> frozenset[int]:
    """Numbers of the frames in a folder."""
    try:
        return _listed(folder, folder.stat().st_mtime_ns)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from None


@lru_cache(1024)
def _listed(folder: Path, changed: int) -> frozenset[int]:
    """Numbers of the frames in a folder that was last ``changed`` then."""
    names = map(re.compile(r"(\d{6})\.jpg").fullmatch, os.listdir(folder))
    return frozenset(int(name[1]) for name in names if name)


def _box(sides: tuple[int, int], size: int, crop: tuple[float, float, float] | None) -> tuple:
    """The part of a frame that becomes size×size pixels: left, top, right, bottom.

    It is the square of ``crop``: its side relative to the shorter one, and its place. Without, the
    centre, with sides and offsets rounded as if the whole frame were scaled first and then cropped.
    """
    if crop:
        side = max(1, int(min(sides) * crop[0]))
        left, top = (round(at * (s - side)) for at, s in zip(crop[1:], sides, strict=True))
        return left, top, left + side, top + side
    edges = []
    for side in sides:
        scaled = size * side // min(sides)
        offset = round((scaled - size) / 2)
        edges.append((offset * side / scaled, (offset + size) * side / scaled))
    (left, right), (top, bottom) = edges
    return left, top, right, bottom


class Gesture(NamedTuple):
    """An entry of the annotation."""

    name: str
    subject: str
    folders: dict[str, str]  # modality → folder of frames, relative to the data root
    subset: str
    label: int  # number of the class
    first: int  # number of the first frame
    last: int


def read_annotation(path: Path) -> tuple[list[str], list[Gesture]]:
    """Labels and gestures of an annotation file, in its order.

    ``{"labels": [names], "database": {"<colour folder>_<k>": {"subset": …, "annotations":
    {"label": …, "start_frame": …, "end_frame": …}}}}``. The first gesture of a folder may lack
    ``_<k>``, and frames may be text. Raises DataError for anything else, with the entry.
    """
    content = read_json(path)
    labels = _member(content, "labels", list, path)
    classes: dict[str, int] = {}
    for i, label in enumerate(labels):
        if not isinstance(label, str) or label in classes:
            raise DataError(f"{path}: labels[{i}]", quoted(label), "names, each once")
        classes[label] = i
    gestures = []
    for name, entry in _member(content, "database", dict, path).items():
        place = f"{path}: {quoted(name)}"
        clip = CLIP.fullmatch(name)
        if not clip:
            raise DataError(f"{place}: allowed: SubjectNN/SceneM/Color/rgbK or …/rgbK_<k>")
        subset = _member(entry, "subset", str, place)
        if subset not in SUBSETS:
            raise DataError(place, f"subset {quoted(subset)}", ", ".join(SUBSETS))
        about = _member(entry, "annotations", dict, place)
        label = _member(about, "label", str, place)
        if label not in classes:
            raise DataError(place, f"label {quoted(label)}", f"the {len(labels)} in 'labels'")
        first, last = (_frame_number(about, k, place) for k in ("start_frame", "end_frame"))
        if first > last:
            raise DataError(place, f"frames {first} to {last}", "start to end")
        colour = clip["folder"]
        folders = {"RGB": colour, "Depth": "/Depth/depth".join(colour.rsplit("/Color/rgb", 1))}
        found = Gesture(name, clip["subject"], folders, subset, classes[label], first, last)
        gestures.append(found)
    return labels, gestures


def _member(found: object, key: str, kind: type, place: object):
    """``found[key]``, which must be of type ``kind``."""
    if not isinstance(found, dict) or key not in found:
        has = ", ".join(map(repr, found)) if isinstance(found, dict) else type(found).__name__
        raise DataError(place, shortened(has, 200) or "nothing", f"an object with {key!r}")
    if not isinstance(found[key], kind):
        words = {list: "a list", dict: "an object", str: "a name"}
        raise DataError(f"{place}: {key}", quoted(found[key]), words[kind])
    return found[key]


def _frame_number(about: dict, key: str, place: str) -> int:
    found, number = about.get(key), math.nan
    with suppress(ValueError, OverflowError):
        number = float(found) if type(found) in (int, float, str) else math.nan
    if not number.is_integer() or not 0 <= number < 1e6:
        raise DataError(place, f"{key} {quoted(found)}", "a frame's number, 0 to 999999")
    return int(number)


def _only_annotation(root: Path) -> Path:
    found = sorted(path for path in root.glob("*.json") if path.name[0] != ".")
    if len(found) == 1:
        return found[0]
    if root.is_dir():
        names = ", ".join(path.name for path in found) or "no *.json"
        problem, remedy = f"found {names}", "; annotation=NAME chooses one"
    else:
        folder = "the folder that holds 'egogesture'"
        problem = "no such folder"
        remedy = f". Set BMNAS_DATA to {folder}, or pass data_root, or sample=True"
    layout = "SubjectNN/SceneM/{Color,Depth}/{rgb,depth}K/NNNNNN.jpg and one *.json beside them"
    raise DataError(f"data of task 'egogesture': {root}: {problem}; looked for {layout}{remedy}")


def _check_apart(path: Path, gestures: Sequence[Gesture]) -> None:
    """Refuse frames that are in two subsets, and warn of subjects that are."""
    furthest: dict[tuple[str, str], Gesture] = {}  # folder, subset → what ends last so far
    for clip in sorted(gestures, key=lambda g: (g.folders["RGB"], g.first)):
        for subset in SUBSETS:
            other = furthest.get((clip.folders["RGB"], subset))
            if other and subset != clip.subset and clip.first <= other.last:
                both = f"{other.name!r} in {subset!r} and {clip.name!r} in {clip.subset!r}"
                frames = f"frames {clip.first}…{min(clip.last, other.last)}"
                raise DataError(f"{path}: {both} share {frames}; allowed: each frame in one subset")
        place = clip.folders["RGB"], clip.subset
        furthest[place] = max(furthest.get(place, clip), clip, key=lambda g: g.last)
    subsets = Counter(subject for subject, _ in {(g.subject, g.subset) for g in gestures})
    shared = sorted(subject for subject, n in subsets.items() if n > 1)
    if shared:
        found = f"subjects in more than one subset: {len(shared)}, such as {shared[0]}"
        why = "in the data set's own lists there are none, and they make scores too high"
        warnings.warn(f"{path}: found {found}; {why}", DataWarning, stacklevel=3)


def _with_folders(root: Path, path: Path, gestures: Sequence[Gesture]) -> list[Gesture]:
    """The gestures whose two folders exist; the others are left out with a warning."""
    exists = cache(lambda folder: (root / folder).is_dir())
    missing = {g.name: [f for f in g.folders.values() if not exists(f)] for g in gestures}
    kept = [gesture for gesture in gestures if not missing[gesture.name]]
    if not kept:
        what = f"none of the folders of the {len(gestures):,} gestures in {path}"
        such = f", such as {gestures[0].folders['RGB']}" if gestures else ""
        remedy = "set data_root to the folder that holds them"
        raise DataError(f"data of task 'egogesture': {root}: found {what}{such}; {remedy}")
    reasons = [f"{name}: no folder {' and '.join(f)}" for name, f in missing.items() if f]
    warn_skipped(f"gestures in {path}", reasons)
    return kept
