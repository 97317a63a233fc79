"""``egogesture``: EgoGesture's RGB and depth videos, from the data set's own frames."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
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
from ..inputs import DataError, DataWarning, FileInputs, files_version, warn_skipped, wrong
from ..task import Task, register_task
from .common import folder_of, modalities_of, paired_splits, read_json
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

CLIP = re.compile(r"(?P<folder>(?P<subject>[^/]+)/[^/]+/Color/rgb\d+)(_\d+)?")

DATA = DataSet(
    name="egogesture",
    title="EgoGesture: 24,161 gestures in colour and depth",
    license="on request, for research",
    source="Zhang et al., NLPR, Chinese Academy of Sciences",
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
        CheckpointError, TaskError: for weights that do not fit or have no modality.
    """
    root = folder_of("egogesture", data_root, sample, samples.make)
    path = Path(annotation).expanduser() if annotation else _only_annotation(root)
    labels, found = read_annotation(path)
    _check_apart(path, found)
    gestures = _with_folders(root, path, found)
    frames, size = (16, 32) if sample else (32, 112)
    inputs, backbones = {}, {}
    for name, colours in COLOURS.items():
        clips = tuple((gesture.folders[name], gesture.first, gesture.last) for gesture in gestures)
        inputs[name] = FrameReader(root, clips, colours, frames, size).inputs(path)
        with seeded(0, "egogesture", name):
            sizes = SAMPLE_SIZES if sample else {}
            backbones[name] = ResNeXt3D(len(labels), colours, **sizes)
    splits = paired_splits([SUBSETS[g.subset] for g in gestures], [g.label for g in gestures])
    notes = {"root": str(root), "sample": sample, "labels": labels, "frames": frames, "size": size}
    notes |= {"left out": len(found) - len(gestures)}
    modalities = modalities_of(backbones, inputs, weights, pooling="time")
    config, alone = (SAMPLE, SAMPLE_BACKBONES) if sample else (PAPER, {})
    search = SearchSettings(epochs=8 if sample else None, selection="successive_halving")
    return Task(
        "egogesture", None, len(labels), "accuracy", modalities, splits, config, search, notes,
        alone, protocol="cross-subject",
    )  # fmt: skip


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

    def inputs(self, annotation: Path) -> FileInputs:
        files = [annotation, *(self.root / folder for folder in sorted({c[0] for c in self.clips}))]
        names = tuple(f"{folder}, frames {first}…{last}" for folder, first, last in self.clips)
        version = files_version(files, self.clips, self.frames, self.size)
        return FileInputs(names, self, version)

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
        shown = range(first + start, first + start + min(n, self.frames))
        paths = (self.root / folder / f"{number:06d}.jpg" for number in shown)
        pixels = torch.from_numpy(np.stack([self._frame(path, crop) for path in paths]))
        looped = pixels[torch.arange(self.frames) % len(shown)]
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
            raise wrong(path, f"no picture that can be decoded ({error})", "a JPEG file") from None
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
    for i, label in enumerate(labels):
        if not isinstance(label, str) or label in labels[:i]:
            raise wrong(f"{path}: labels[{i}]", quoted(label), "names, each once")
    classes = {label: i for i, label in enumerate(labels)}
    gestures = []
    for name, entry in _member(content, "database", dict, path).items():
        place = f"{path}: {name!r}"
        clip = CLIP.fullmatch(name)
        if not clip:
            raise DataError(f"{place}: allowed: SubjectNN/SceneM/Color/rgbK or …/rgbK_<k>")
        subset = _member(entry, "subset", str, place)
        if subset not in SUBSETS:
            raise wrong(place, f"subset {subset!r}", ", ".join(SUBSETS))
        about = _member(entry, "annotations", dict, place)
        label = _member(about, "label", str, place)
        if label not in classes:
            raise wrong(place, f"label {label!r}", f"the {len(labels)} in 'labels'")
        first, last = (_frame_number(about, k, place) for k in ("start_frame", "end_frame"))
        if first > last:
            raise wrong(place, f"frames {first} to {last}", "start to end")
        colour = clip["folder"]
        folders = {"RGB": colour, "Depth": "/Depth/depth".join(colour.rsplit("/Color/rgb", 1))}
        found = Gesture(name, clip["subject"], folders, subset, classes[label], first, last)
        gestures.append(found)
    return labels, gestures


def _member(found: object, key: str, kind: type, place: object):
    """``found[key]``, which must be of type ``kind``."""
    if not isinstance(found, dict) or key not in found:
        has = ", ".join(map(repr, found)) if isinstance(found, dict) else type(found).__name__
        raise wrong(place, shortened(has, 200) or "nothing", f"an object with {key!r}")
    if not isinstance(found[key], kind):
        words = {list: "a list", dict: "an object", str: "a name"}
        raise wrong(f"{place}: {key}", quoted(found[key]), words[kind])
    return found[key]


def _frame_number(about: dict, key: str, place: str) -> int:
    found = about.get(key)
    try:
        number = float(found) if type(found) in (int, float, str) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not number.is_integer() or not 0 <= number < 1e6:
        raise wrong(place, f"{key} {quoted(found)}", "a frame's number, 0 to 999999")
    return int(number)


def _only_annotation(root: Path) -> Path:
    layout = "SubjectNN/SceneM/{Color,Depth}/{rgb,depth}K/NNNNNN.jpg and one *.json beside them"
    place, looked = f"data of task 'egogesture': {root}", f"looked for {layout}"
    if not root.is_dir():
        raise DataError(
            f"{place}: no such folder; {looked}. Set BMNAS_DATA to the folder that holds "
            "'egogesture', or pass data_root, or sample=True"
        )
    found = sorted(root.glob("*.json"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "no *.json"
        raise DataError(f"{place}: found {names}; {looked}; pass annotation to choose a file")
    return found[0]


def _check_apart(path: Path, gestures: Sequence[Gesture]) -> None:
    """Refuse frames that are in two subsets, and warn of subjects that are."""
    furthest: dict[tuple[str, str], Gesture] = {}  # folder, subset → what ends last so far
    for clip in sorted(gestures, key=lambda g: (g.folders["RGB"], g.first)):
        for subset in SUBSETS:
            other = furthest.get((clip.folders["RGB"], subset))
            if other and subset != clip.subset and clip.first <= other.last:
                raise DataError(
                    f"{path}: {other.name!r} in {subset!r} and {clip.name!r} in {clip.subset!r} "
                    f"share frames {clip.first}…{min(clip.last, other.last)}; allowed: each frame "
                    "in one subset"
                )
        place = clip.folders["RGB"], clip.subset
        furthest[place] = max(furthest.get(place, clip), clip, key=lambda g: g.last)
    subsets = Counter(subject for subject, _ in {(g.subject, g.subset) for g in gestures})
    shared = sorted(subject for subject, n in subsets.items() if n > 1)
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
    missing = {g.name: [f for f in g.folders.values() if not exists(f)] for g in gestures}
    kept = [gesture for gesture in gestures if not missing[gesture.name]]
    if not kept:
        what = f"none of the folders of the {len(gestures):,} gestures in {path}"
        such = f", such as {gestures[0].folders['RGB']}" if gestures else ""
        raise DataError(f"data of task 'egogesture': {root}: found {what}{such}")
    reasons = [f"{name}: no folder {' and '.join(f)}" for name, f in missing.items() if f]
    warn_skipped(f"gestures in {path}", reasons)
    return kept
