"""``ntu``: NTU RGB+D, 60 actions as video and as skeletons, from the data set's own files."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from ...backbones.paper.ntu import HCN, InflatedResNet50
from ...config import SearchSettings, Settings
from ...runtime import seeded
from ..files import asset
from ..inputs import DataError, FileInputs, files_version, warn_skipped
from ..task import Task, TaskError, register_task
from .common import folder_of, modalities_of, paired_splits
from .ntu_readers import SkeletonReader, VideoReader
from .samples import actions

CLASSES, SUBJECTS = 60, 40

#: Cross-subject: who trains, validates and tests.
TRAIN_SUBJECTS = (1, 4, 8, 13, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
VALIDATION_SUBJECTS = (2, 5, 9, 14)
TEST_SUBJECTS = (3, 6, 7, 10, 11, 12, 20, 21, 22, 23, 24, 26, 29, 30, 32, 33, 36, 37, 39, 40)
#: The training subjects that the released code searches with.
SEARCH_SUBJECTS = (1, 8, 15, 17, 19, 27, 31, 35)
#: Cross-view: the camera that tests; the other two train.
TEST_CAMERA = 1

PAPER = Settings(
    C=128, L=8, N=2, M=2, epochs=30, batch_size=96, dropout=0.2, max_lr=1e-3, min_lr=1e-6,
    weight_decay=1e-4, restart=1,
)  # fmt: skip
#: Subjects → how many clips of each action they act together in the sample: 264, 96 and 108 in all.
SAMPLE_SHARES = {TRAIN_SUBJECTS: 22, VALIDATION_SUBJECTS: 8, TEST_SUBJECTS: 9}
SAMPLE = replace(PAPER, C=32, epochs=15, batch_size=32, max_lr=3e-3)
#: How the sample's backbones are trained alone.
SAMPLE_BACKBONES = {
    "Video": Settings(epochs=10, batch_size=16, max_lr=3e-3, restart=10),
    "Skeleton": Settings(epochs=10, batch_size=8, max_lr=1e-3, restart=10),
}


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
    camera, subject, repetition, action). They may be anywhere below the folder and are paired by
    name; each is opened when its sample is read. Three kinds of samples are left out: the 302 whose
    skeletons are missing according to the data set's authors and those of NTU RGB+D 120, both
    counted in ``task.notes``, and, with a warning, those that lack one of their two files.

    Args:
        data_root: the folder; by default ``ntu`` in the folder of data sets.
        sample: read frames at 48×48, for a smaller Video backbone that trains on a laptop. Without
            ``data_root`` they are those of 468 clips of 12 actions that the kit draws in this
            format, in which neither modality alone can tell all actions apart.
        protocol: ``"subject"`` splits by the paper's lists of subjects. ``"view"`` tests on camera
            1. It names no validation, so we take subjects 2, 5, 9 and 14 of cameras 2 and 3; the
            others train.
        train_subjects: train on these alone, such as ``SEARCH_SUBJECTS``.
        bgr: read videos with blue first, as OpenCV does. The published Video weights expect it.
        weights: modality → file of weights for its backbone; a backbone without has random ones.

    Raises DataError if there are no files, or two for the same half of a sample, CheckpointError
    for weights that do not fit, and TaskError for an unknown protocol, subject or modality, a
    subject in two splits, or a split without samples.
    """
    split_of = _splits(protocol, train_subjects)
    root = folder_of("ntu", data_root, sample, actions.make, SAMPLE_SHARES)
    samples, left_out = _samples(root)
    samples = {name: pair for name, pair in samples.items() if split_of(name)}
    videos, skeletons = zip(*samples.values(), strict=True) if samples else ((), ())
    readers = {
        "Video": VideoReader(videos, size=48 if sample else 256, bgr=bgr),
        "Skeleton": SkeletonReader(skeletons, min_frames=16 if sample else 64),
    }
    inputs = {
        name: FileInputs(read.paths, read, files_version(read.paths, read))
        for name, read in readers.items()
    }
    sizes = {"width": 8, "blocks": (1, 1, 1, 1)} if sample else {}
    with seeded(0, "ntu backbones"):
        backbones = {"Video": InflatedResNet50(CLASSES, **sizes), "Skeleton": HCN(CLASSES)}
    splits = paired_splits(list(map(split_of, samples)), [_place(name)[2] - 1 for name in samples])
    notes = {"root": str(root), "sample": sample, "actions": actions.ACTIONS if sample else {}}
    modalities = modalities_of(backbones, inputs, weights, pooling="time")
    return Task(
        "ntu", None, CLASSES, "accuracy", modalities, splits, SAMPLE if sample else PAPER,
        SearchSettings(epochs=3 if sample else None, selection="successive_halving"),
        notes | left_out, SAMPLE_BACKBONES if sample else {}, protocol=f"cross-{protocol}",
    )  # fmt: skip


_NAME = re.compile(r"(S\d{3}C\d{3}P\d{3}R\d{3}A\d{3})(_rgb\.avi|\.skeleton)")
KINDS = ("_rgb.avi", ".skeleton")


def _place(name: str) -> tuple[int, int, int]:
    """Camera, subject and action from a sample's name."""
    return int(name[5:8]), int(name[9:12]), int(name[17:20])


def _splits(protocol: str, train: tuple[int, ...] | None) -> Callable[[str], str | None]:
    """A function from a sample's name to its split, or to None if it is in no split."""
    if protocol not in ("subject", "view"):
        raise TaskError("protocol", repr(protocol), "'subject', 'view'")
    testers = TEST_SUBJECTS if protocol == "subject" else ()
    known = [s for s in range(1, SUBJECTS + 1) if s not in (*VALIDATION_SUBJECTS, *testers)]
    train = known if train is None else train
    if not isinstance(train, list | tuple) or not train:
        raise TaskError("train_subjects", repr(train), "a tuple of subjects")
    for subject in train:
        if subject not in known:
            held_out = {"validation": VALIDATION_SUBJECTS, "test": testers}
            split = "".join(f", who is in {s}" for s, they in held_out.items() if subject in they)
            raise TaskError("train_subjects", f"{subject!r}{split}", ", ".join(map(str, known)))

    def split_of(name: str) -> str | None:
        camera, subject, _ = _place(name)
        if subject in testers or protocol == "view" and camera == TEST_CAMERA:
            return "test"
        if subject in VALIDATION_SUBJECTS:
            return "validation"
        return "train" if subject in train else None

    return split_of


def _samples(root: Path) -> tuple[dict[str, tuple[str, str]], dict[str, int]]:
    """Name → video and skeleton of each sample below ``root``, and counts of those left out."""
    videos, skeletons = {}, {}
    found, others = dict(zip(KINDS, (videos, skeletons), strict=True)), set()
    for name, kind, path in _walk(root) if root.is_dir() else ():
        _, subject, action = _place(name)
        if not 1 <= action <= CLASSES or not 1 <= subject <= SUBJECTS:
            others.add(name)
        elif name in found[kind]:
            raise DataError(path, f"{name} also at {found[kind][name]}", "once")
        else:
            found[kind][name] = path
    if not (videos and skeletons):
        counts = " and ".join(f"{len(found[k])} files SsssCcccPpppRrrrAaaa{k}" for k in KINDS)
        raise DataError(
            f"{root}: found {counts} in or below this folder; allowed: both, as NTU RGB+D is "
            "distributed. Set data_root to their folder, or BMNAS_DATA to one that holds 'ntu'"
        )
    missing = set(asset("ntu/missing_skeletons.txt").read_text("utf-8").split())
    notes = {"missing_skeletons": len({*videos, *skeletons} & missing)}
    names = sorted({*videos, *skeletons} - missing)
    pairs = {name: (videos.get(name), skeletons.get(name)) for name in names}
    reasons = [
        f"{video or skeleton}: found no {name}{KINDS[video is not None]}"
        for name, (video, skeleton) in pairs.items()
        if not (video and skeleton)
    ]
    warn_skipped("samples", reasons)
    notes |= {"unpaired": len(reasons), "ntu120": len(others)}
    return {name: pair for name, pair in pairs.items() if all(pair)}, notes


def _walk(root: Path) -> Iterator[tuple[str, str, str]]:
    """Name, kind and path of every sample's file below ``root``; each link is followed once."""

    def refuse(error: OSError):
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from None

    seen = set()
    for folder, inner, names in os.walk(root, onerror=refuse, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            inner.clear()
            continue
        seen.add(real)
        for match in filter(None, map(_NAME.fullmatch, names)):
            yield match[1], match[2], os.path.join(folder, match[0])
