"""``ntu``: NTU RGB+D, 60 actions as video and as skeletons, from the data set's own files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ...backbones.paper.hcn import HCN
from ...backbones.paper.inflated_resnet import InflatedResNet50
from ...config import SearchSettings, Settings
from ...runtime import seeded
from .. import files
from ..inputs import DataError, FileInputs, files_version, warn_skipped
from ..task import SPLITS, Split, Task, TaskError, register_task
from .common import folder_of, modalities_of
from .samples import actions

CLASSES, SUBJECTS = 60, 40

#: Cross-subject: who trains, validates and tests.
TRAIN_SUBJECTS = (1, 4, 8, 13, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
VALIDATION_SUBJECTS = (2, 5, 9, 14)
TEST_SUBJECTS = (3, 6, 7, 10, 11, 12, 20, 21, 22, 23, 24, 26, 29, 30, 32, 33, 36, 37, 39, 40)
#: Those of the training subjects that the released code searches with.
SEARCH_SUBJECTS = (1, 8, 15, 17, 19, 27, 31, 35)
#: Cross-view: the camera that tests; the other two train.
TEST_CAMERA = 1

JOINTS, BODIES = 25, 2
#: Joint 2 in the data set's own count, the middle of the spine.
ORIGIN = 1
#: Metres from the sensor at which no body can be.
FAR = 1000.0
#: ImageNet's mean and deviation of red, green and blue in 0 … 1.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

PAPER = Settings(
    C=128, L=8, N=2, M=2, epochs=30, batch_size=96, dropout=0.2, max_lr=1e-3, min_lr=1e-6,
    weight_decay=1e-4, restart=1,
)  # fmt: skip
#: How many samples of each action they share out in the sample: 264, 96 and 108 in all.
SAMPLE_SHARES = {TRAIN_SUBJECTS: 22, VALIDATION_SUBJECTS: 8, TEST_SUBJECTS: 9}
SAMPLE = Settings(
    C=32, L=8, N=2, M=2, epochs=15, batch_size=32, dropout=0.2, max_lr=3e-3, min_lr=1e-6,
    weight_decay=1e-4, restart=1,
)  # fmt: skip
#: How the sample's backbones learn from scratch.
SAMPLE_BACKBONES = {
    "Video": Settings(epochs=10, batch_size=16, max_lr=3e-3, restart=10),
    "Skeleton": Settings(epochs=10, batch_size=8, max_lr=1e-3, restart=10),
}

DATA = files.DataSet(
    name="ntu",
    title="NTU RGB+D: 56,880 clips of 60 actions as video and skeletons",
    license="on request, for research",
    source="Shahroudy et al., ROSE Lab, Nanyang Technological University",
    folder="ntu",
    read=lambda: ntu(),
)
files.DATA_SETS.add(DATA.name, DATA)


@register_task("ntu")
def ntu(
    data_root: str | os.PathLike | None = None,
    sample: bool = False,
    protocol: str = "subject",
    train_subjects: tuple[int, ...] | None = None,
    bgr: bool = False,
    weights: dict[str, str | os.PathLike] | None = None,
) -> Task:
    """Sixty actions as video and as skeletons (Shahroudy et al. 2016).

    Files are called ``SsssCcccPpppRrrrAaaa.skeleton`` and ``SsssCcccPpppRrrrAaaa_rgb.avi`` (setup,
    camera, subject, repetition, action); they lie anywhere below the folder and are paired by
    name. No file is opened before it is asked for. Left out are the 302 samples whose skeletons
    the data set's authors know to be missing and what belongs to NTU RGB+D 120, both counted in
    ``task.notes``, and with a warning what has only one of its two files.

    Args:
        data_root: the folder; ``ntu`` in the folder of data sets where None.
        sample: frames of 48×48 are read, for a smaller Video backbone that trains on a laptop; and
            without ``data_root`` they are of 468 clips of 12 actions that the kit acts in this
            format, in which neither modality alone can tell all actions apart.
        protocol: ``"subject"``: all splits by the paper's lists of subjects. ``"view"``: camera 1
            tests; the protocol names no validation, so we take subjects 2, 5, 9 and 14 of
            cameras 2 and 3; the others train.
        train_subjects: train on these alone, such as ``SEARCH_SUBJECTS``.
        bgr: videos blue first, as OpenCV reads them: how the published Video weights see them.
        weights: modality → file of its backbone's weights. A backbone without has random ones.

    Raises:
        DataError: if there are no files, or two for the same half of a sample.
        CheckpointError: for weights that cannot be read or do not fit.
        TaskError: for an unknown protocol, subject or modality, a subject in two splits, or a
            split without samples.
    """
    split_of = _splits(protocol, train_subjects)
    root = folder_of("ntu", data_root, sample, actions.make, SAMPLE_SHARES)
    samples, notes = _samples(root)
    samples = {name: pair for name, pair in samples.items() if split_of(name)}
    videos, skeletons = zip(*samples.values(), strict=True) if samples else ((), ())
    video, skeleton = ({"size": 48}, {"least": 16}) if sample else ({}, {})
    inputs = {
        "Video": VideoReader(videos, bgr=bgr, **video).inputs(),
        "Skeleton": SkeletonReader(skeletons, **skeleton).inputs(),
    }
    backbones = _backbones({"width": 8, "blocks": (1, 1, 1, 1)} if sample else {})
    return Task(
        "ntu",
        None,
        CLASSES,
        "accuracy",
        modalities_of(backbones, inputs, weights, pooling="time"),
        {split: _split(split, list(samples), split_of) for split in SPLITS},
        SAMPLE if sample else PAPER,
        SearchSettings(epochs=3 if sample else None, selection="successive_halving"),
        {
            "root": str(root),
            "sample": sample,
            "actions": actions.ACTIONS if sample else {},
            **notes,
        },
        SAMPLE_BACKBONES if sample else {},
        protocol=f"cross-{protocol}",
    )


def _backbones(sizes: dict) -> dict[str, nn.Module]:
    with seeded(0, "ntu backbones"):
        return {"Video": InflatedResNet50(CLASSES, **sizes), "Skeleton": HCN(CLASSES)}


# --- which samples there are, and who trains


_NAME = re.compile(r"(S\d{3}C(\d{3})P(\d{3})R\d{3}A(\d{3}))(_rgb\.avi|\.skeleton)?")
KINDS = ("_rgb.avi", ".skeleton")


def _place(name: str) -> tuple[int, int, int]:
    """Camera, subject and action, as they stand in a sample's name."""
    return tuple(map(int, _NAME.fullmatch(name).groups()[1:4]))


def _splits(protocol: str, train: tuple[int, ...] | None) -> Callable[[str], str | None]:
    """The function from a sample's name to its split, or None where it is in none."""
    if protocol not in ("subject", "view"):
        raise TaskError(f"protocol: found {protocol!r}; allowed: 'subject', 'view'")
    testers = TEST_SUBJECTS if protocol == "subject" else ()
    known = [s for s in range(1, SUBJECTS + 1) if s not in (*VALIDATION_SUBJECTS, *testers)]
    train = known if train is None else train
    if not isinstance(train, list | tuple) or not train:
        raise TaskError(f"train_subjects: found {train!r}; allowed: a tuple of subjects")
    for subject in train:
        if subject not in known:
            held_out = {"validation": VALIDATION_SUBJECTS, "test": testers}
            split = "".join(f", who is in {s}" for s, they in held_out.items() if subject in they)
            allowed = ", ".join(map(str, known))
            raise TaskError(f"train_subjects: found {subject!r}{split}; allowed: {allowed}")

    def split_of(name: str) -> str | None:
        camera, subject, _ = _place(name)
        if subject in testers or protocol == "view" and camera == TEST_CAMERA:
            return "test"
        if subject in VALIDATION_SUBJECTS:
            return "validation"
        return "train" if subject in train else None

    return split_of


def _split(split: str, names: list[str], split_of: Callable[[str], str | None]) -> Split:
    items = [i for i, name in enumerate(names) if split_of(name) == split]
    index = torch.tensor(items, dtype=torch.long)[:, None].expand(-1, 2).contiguous()
    labels = torch.tensor([_place(names[i])[2] - 1 for i in items], dtype=torch.long)
    return Split(split, index, labels)


def _samples(root: Path) -> tuple[dict[str, tuple[str, str]], dict[str, int]]:
    """Name → video and skeleton of each whole sample below ``root``, by name; and what is not."""
    found: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
    others = set()
    for name, kind, path in _forward_path(root) if root.is_dir() else ():
        _, subject, action = _place(name)
        if not 1 <= action <= CLASSES or not 1 <= subject <= SUBJECTS:
            others.add(name)
        elif name in found[kind]:
            raise DataError(f"{path}: found {name} at {found[kind][name]} too; allowed: once")
        else:
            found[kind][name] = path
    videos, skeletons = (found[kind] for kind in KINDS)
    for kind in KINDS:
        if not found[kind]:
            counts = " and ".join(f"{len(found[k])} files SsssCcccPpppRrrrAaaa{k}" for k in KINDS)
            raise DataError(
                f"{root}: found {counts} in or below this folder; allowed: both, as NTU RGB+D is "
                "distributed. Set data_root to their folder, or BMNAS_DATA to one that holds 'ntu'"
            )
    missing = set(files.asset("ntu/missing_skeletons.txt").read_text().split())
    names = sorted({*videos, *skeletons} - missing)
    halves = [name for name in names if name not in videos or name not in skeletons]
    warn_skipped(
        "samples",
        [
            f"{videos.get(name) or skeletons[name]}: no {name}{KINDS[name in videos]} to go with it"
            for name in halves
        ],
    )
    pairs = {n: (videos[n], skeletons[n]) for n in names if n in videos and n in skeletons}
    notes = {
        "missing_skeletons": len({*videos, *skeletons} & missing),
        "unpaired": len(halves),
        "ntu120": len(others),
    }
    return pairs, notes


def _forward_path(root: Path) -> Iterator[tuple[str, str, str]]:
    """Name, kind and path of every sample's file below ``root``; links are followed, once."""

    def refuse(error: OSError):
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from None

    seen = set()
    for folder, inner, names in os.forward_path(root, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        for name in names:
            match = _NAME.fullmatch(name)
            if match and match[5]:
                yield match[1], match[5], os.path.join(folder, name)


# --- videos


@dataclass(frozen=True)
class VideoReader:
    """Reads videos for the Video backbone: (frames, size, size, 3), as ImageNet is normalised.

    Frames are spread evenly over the clip. Where augmented, as in the released code, over a
    central part of it: a random share of 50 to 100 %.

    Attributes:
        paths: one file an item.
        frames, size: how many frames, and their height and width in pixels.
        bgr: blue first. The means and deviations stay where they are, as in the released code.
    """

    paths: tuple[str, ...] = field(repr=False)
    frames: int = 8
    size: int = 256
    bgr: bool = False

    def __call__(self, item: int, random: torch.Generator | None) -> Tensor:
        share = 1.0 if random is None else 1 - 0.5 * torch.rand((), generator=random).item()
        video = read_video(self.paths[item], self.frames, self.size, share)
        video = torch.from_numpy(video).flip(-1) if self.bgr else torch.from_numpy(video)
        return (video / 255 - torch.tensor(MEAN)) / torch.tensor(DEVIATION)

    def inputs(self) -> FileInputs:
        version = files_version(list(map(Path, self.paths)), self)
        return FileInputs(self.paths, self, version)


def read_video(
    path: str | os.PathLike, frames: int = 8, size: int = 256, share: float = 1.0
) -> np.ndarray:
    """Frames spread evenly over a video, resized to squares: (frames, size, size, 3) bytes, RGB.

    A video with too few has some of them twice. Only these frames are kept in memory.

    Args:
        share: of the clip's length, in its middle, over which they are spread.

    Raises:
        DataError: for a file that is no video, is empty, or breaks off: with less than nine tenths
            of the frames that it claims to have.
    """
    av = files.package("av")
    try:
        claimed = _count_frames(av, path)
        count = claimed
        while count:
            chosen = _spread(count, frames, share)
            kept, seen = _decode(av, path, set(chosen), size)
            if seen > chosen[-1]:
                return np.stack([kept[i] for i in chosen])
            if 10 * seen < 9 * claimed:
                raise DataError(f"{path}: found {seen} frames; allowed: the {claimed} it claims")
            count = seen  # a codec may make a frame less of a file than it has packets
    except (av.error.FFmpegError, OSError) as error:
        raise DataError(f"{path}: found no video that can be decoded ({error})") from None
    raise DataError(f"{path}: found no video frame; allowed: one up")


def _spread(count: int, frames: int, share: float) -> list[int]:
    first = (count - int(count * share)) // 2
    return np.linspace(first, count - 1 - first, frames).astype(int).tolist()


def _open(av, path: str | os.PathLike):
    file = av.open(os.fspath(path), metadata_errors="ignore")
    if not file.fusion_models.video or file.fusion_models.video[0].codec_context is None:
        file.close()
        raise DataError(f"{path}: found no video stream in a known codec; allowed: one")
    # Whoever loads batches keeps every core busy already.
    file.fusion_models.video[0].codec_context.thread_count = 1
    return file


def _count_frames(av, path: str | os.PathLike) -> int:
    """As many as the file has packets, without decoding; or as it claims, if those are more."""
    with _open(av, path) as file:
        stream = file.fusion_models.video[0]
        return max(stream.frames, sum(packet.size > 0 for packet in file.demux(stream)))


def _decode(
    av, path: str | os.PathLike, wanted: set[int], size: int
) -> tuple[dict[int, np.ndarray], int]:
    """The wanted frames by number, and how many were decoded: up to the last one wanted."""
    kept: dict[int, np.ndarray] = {}
    seen, resize = 0, av.video.reformatter.VideoReformatter().reformat
    with _open(av, path) as file:
        for frame in file.decode(video=0):
            if seen in wanted:
                kept[seen] = resize(
                    frame, size, size, "rgb24", interpolation="BICUBIC"
                ).to_ndarray()
            seen += 1
            if len(kept) == len(wanted):
                break
    return kept, seen


# --- skeletons


@dataclass(frozen=True)
class SkeletonReader:
    """Reads skeletons for the Skeleton backbone: (3, frames, 25, 2), see :func:`read_skeleton`.

    Resampled linearly over time, between frames in which a body is there. Where augmented, as in
    the released code, it is a random stretch of the clip: 50 to 100 % of its frames, at least
    ``least`` or all there are.

    Attributes:
        paths: one file an item.
    """

    paths: tuple[str, ...] = field(repr=False)
    frames: int = 32
    least: int = 64

    def __call__(self, item: int, random: torch.Generator | None) -> Tensor:
        skeleton = torch.from_numpy(read_skeleton(self.paths[item]))
        if random is not None:
            whole = skeleton.shape[1]
            share = 0.5 + 0.5 * torch.rand((), generator=random).item()
            kept = min(max(int(whole * share), self.least), whole)
            first = int(torch.randint(whole - kept + 1, (), generator=random))
            skeleton = skeleton[:, first : first + kept]
        there = (skeleton != 0).any(2).any(0).float()
        there = self._resampled(there[None, :, None])
        skeleton = self._resampled(skeleton) / there.clamp(min=0.5)
        return skeleton * (there >= 0.5)

    def _resampled(self, skeleton: Tensor) -> Tensor:
        """(coordinates, T, joints, bodies) → (coordinates, frames, joints, bodies)."""
        axes, _, joints, bodies = skeleton.shape
        flat = skeleton.permute(0, 2, 3, 1).flatten(0, 2)[None]
        flat = nn.functional.interpolate(flat, size=self.frames, mode="linear")
        return flat.reshape(axes, joints, bodies, self.frames).permute(0, 3, 1, 2).contiguous()

    def inputs(self) -> FileInputs:
        version = files_version(list(map(Path, self.paths)), self)
        return FileInputs(self.paths, self, version)


def read_skeleton(path: str | os.PathLike) -> np.ndarray:
    """Two bodies of a ``.skeleton`` file: (3, frames, 25, 2) metres from joint 2 of the first.

    Of more than two bodies those are taken that are in most frames and, among equals, that move
    most, in this order; each keeps its place for the whole clip. Frames with neither are left
    out. A body that is not there, in a frame or at all, is zeros; the released code leaves it at
    the sensor. Where the first one is not there, the origin stays where it was.

    Raises:
        DataError: for a file that is not whole, with its line; or without any body.
    """
    ids, times, joints, count = _parse(path)
    rows: dict[str, list[int]] = {}
    for row, body in enumerate(ids):
        rows.setdefault(body, []).append(row)
    if not rows:
        raise DataError(f"{path}: found no body in {count} frames; allowed: one up")

    def rank(body: str) -> tuple[int, float]:
        return -len(rows[body]), -float(joints[rows[body]].var(0).sum())

    places = np.zeros((count, BODIES, JOINTS, 3), np.float32)
    there = np.zeros((count, BODIES), bool)
    for slot, body in enumerate(sorted(rows, key=rank)[:BODIES]):
        when = [times[row] for row in rows[body]]
        places[when, slot], there[when, slot] = joints[rows[body]], True
    places, there = places[there.any(1)], there[there.any(1)]
    latest = np.maximum.accumulate(np.where(there[:, 0], np.arange(len(there)), 0))
    latest = np.maximum(latest, there[:, 0].argmax())
    places -= places[latest, 0, ORIGIN][:, None, None]
    places *= there[:, :, None, None]
    return places.transpose(3, 0, 2, 1).copy()


def _parse(path: str | os.PathLike) -> tuple[list[str], list[int], np.ndarray, int]:
    """Every body of every frame: its id, its frame, its (25, 3) joints; and how many frames."""
    lines = _Lines(path)
    ids: list[str] = []
    times: list[int] = []
    rows: list[list[str]] = []
    starts: list[int] = []
    frames = lines.count("number of frames")
    for frame in range(frames):
        bodies: list[str] = []
        for _ in range(lines.count("number of bodies")):
            bodies += lines.fields(1, 10)[0][:1]
            if lines.count("number of joints") != JOINTS:
                raise lines.wrong(lines.at - 1, f"{lines.lines[lines.at - 1]} joints", JOINTS)
            starts.append(lines.at)
            rows += lines.fields(JOINTS, 12)
        if len({*bodies}) != len(bodies):
            raise lines.wrong(lines.at - 1, "a body twice in one frame", "once")
        ids += bodies
        times += [frame] * len(bodies)
    if lines.at < len(lines.lines):
        raise lines.wrong(
            lines.at, repr(lines.lines[lines.at][:40]), f"the end, after {frames} frames"
        )
    try:
        joints = np.array([float(x) for row in rows for x in row[:3]])
        plausible = (np.abs(joints) < FAR).all()
    except ValueError:
        plausible = False
    if not plausible:
        bad = next(i for i, row in enumerate(rows) if not all(map(_is_coordinate, row[:3])))
        line = starts[bad // JOINTS] + bad % JOINTS
        raise lines.wrong(line, repr(" ".join(rows[bad][:3])), "three coordinates in metres")
    return ids, times, joints.astype(np.float32).reshape(-1, JOINTS, 3), frames


def _is_coordinate(text: str) -> bool:
    try:
        return abs(float(text)) < FAR
    except ValueError:
        return False


class _Lines:
    """A text file's lines, taken one after the other; errors say in which one something is."""

    def __init__(self, path: str | os.PathLike):
        self.path, self.at = path, 0
        try:
            self.lines = Path(path).read_bytes().decode("ascii").rstrip().splitlines()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            raise DataError(f"{path}: found byte {byte:#04x}; allowed: text") from None

    def wrong(self, line: int, found: str, allowed: object) -> DataError:
        return DataError(f"{self.path}: line {line + 1}: found {found}; allowed: {allowed}")

    def take(self, n: int) -> list[str]:
        taken = self.lines[self.at : self.at + n]
        self.at += len(taken)
        if len(taken) < n:
            raise self.wrong(self.at, "the end of the file", "as many frames as line 1 says")
        return taken

    def count(self, what: str) -> int:
        """A line with one whole number."""
        text = self.take(1)[0].strip()
        if not text.isdigit() or len(text) > 9:
            raise self.wrong(self.at - 1, repr(text[:40]), f"the {what}")
        return int(text)

    def fields(self, n: int, width: int) -> list[list[str]]:
        """The ``width`` values of each of ``n`` lines."""
        fields = [line.split() for line in self.take(n)]
        for i, values in enumerate(fields):
            if len(values) != width:
                line = self.at - n + i
                raise self.wrong(line, f"{len(values)} values", f"{width}")
        return fields
