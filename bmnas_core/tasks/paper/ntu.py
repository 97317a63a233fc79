"""``ntu``: NTU RGB+D, 60 actions as video and as skeletons, from the data set's own files."""

import os
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from ...backbones.paper.ntu import HCN, InflatedResNet50
from ...config import SearchSettings, Settings
from ...errors import DataNotice, quoted
from ...runtime import seeded
from ..files import asset
from ..inputs import DataError, FileInputs, files_version, warn_skipped
from ..task import Task, TaskError, register_task
from .common import folder_of, modalities_of, paired_splits
from .ntu_readers import SkeletonReader, VideoReader
from .samples import actions

#: Of each edition, by its number of actions: subjects, and the protocols of its authors.
SUBJECTS = {60: 40, 120: 106}
PROTOCOLS = {60: ("subject", "view"), 120: ("subject", "setup")}

#: Cross-subject: who trains, validates and tests.
TRAIN_SUBJECTS = (1, 4, 8, 13, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
VALIDATION_SUBJECTS = (2, 5, 9, 14)
TEST_SUBJECTS = (3, 6, 7, 10, 11, 12, 20, 21, 22, 23, 24, 26, 29, 30, 32, 33, 36, 37, 39, 40)
#: The training subjects that the released code searches with.
SEARCH_SUBJECTS = (1, 8, 15, 17, 19, 27, 31, 35)
#: Cross-view: the camera that tests; the other two train.
TEST_CAMERA = 1

#: Cross-subject of 120 actions (Liu et al. 2020): who trains; the other new subjects test. It names
#: no validation, so we keep four of the new ones, beside the four above.
MORE_TRAIN_SUBJECTS = (
    45, 46, 47, 49, 50, 52, 53, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 84, 85, 86, 89, 91,
    92, 93, 94, 97, 98, 100,
)  # fmt: skip
MORE_VALIDATION_SUBJECTS = (54, 83, 95, 103)
#: Cross-setup: odd setups test, even ones train; of each half of the data set one validates.
VALIDATION_SETUPS = (8, 24)

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
    classes: int = 60,
    protocol: str = "subject",
    train_subjects: tuple[int, ...] | None = None,
    videos: str | None = None,
    bgr: bool = False,
    weights: dict[str, str | os.PathLike] | None = None,
    head: bool = True,
) -> Task:
    """Sixty actions as video and as skeletons (Shahroudy et al. 2016), or 120 (Liu et al. 2020).

    Files are called ``SsssCcccPpppRrrrAaaa.skeleton`` and ``SsssCcccPpppRrrrAaaa_rgb.avi`` (setup,
    camera, subject, repetition, action), in capitals or not. They may be anywhere below the folder,
    but for hidden folders, ``@eaDir`` and the like, and are paired by name; each is opened when its
    sample is read. Three kinds of samples are left out: those whose skeletons are missing according
    to the data set's authors, 302 of 60 actions and 535 of 120, and those of other actions, both
    counted in ``task.notes``; and, with a warning, those that lack one of their two files.

    Args:
        data_root: the folder; by default ``ntu`` in the folder of data sets.
        sample: read frames at 48×48, for a smaller Video backbone that trains on a laptop. Without
            ``data_root`` they are those of 468 clips of 12 actions that the kit draws in this
            format, in which neither modality alone can tell all actions apart.
        classes: 60, or 120 for NTU RGB+D 120.
        protocol: ``"subject"`` splits by the paper's lists of subjects. ``"view"``, of 60 actions,
            tests on camera 1. It names no validation, so we take subjects 2, 5, 9 and 14 of cameras
            2 and 3; the others train. ``"setup"``, of 120, tests on odd setups and trains on even
            ones, of which we take 8 and 24 for validation. (Of 120 actions, ``"subject"`` validates
            on eight of the 53 who train.)
        train_subjects: train on these alone, such as ``SEARCH_SUBJECTS``.
        videos: name of the folder whose videos are read, with those below it, if there are several
            of one name; ``"."`` for the folder ``data_root`` without any below it. By default that
            is the released code's ``nturgb+d_rgb_256x256_30``, which holds copies of 256×256
            pixels; a DataNotice says so. ``"originals"`` are all videos but these copies.
        bgr: read videos with blue first, as OpenCV does. The published Video weights expect it.
        weights: modality → file of weights for its backbone; a backbone without has random ones.
        head: whether to read the classifiers of these weights, too; they may be of other classes.

    Raises DataError if there are no files, or two for the same half of a sample, CheckpointError
    for weights that do not fit, and TaskError for an unknown number of classes, protocol, subject
    or modality, a subject in two splits, or a split without samples.
    """
    split_of = _splits(classes, protocol, train_subjects)
    root = folder_of("ntu", data_root, sample, actions.make, SAMPLE_SHARES)
    samples, left_out = _samples(root, classes, videos)
    samples = {name: pair for name, pair in samples.items() if split_of(name)}
    paths, skeletons = zip(*samples.values(), strict=True) if samples else ((), ())
    readers = {
        "Video": VideoReader(paths, size=48 if sample else 256, bgr=bgr),
        "Skeleton": SkeletonReader(skeletons, min_frames=16 if sample else 64),
    }
    inputs = {
        name: FileInputs(read.paths, read, files_version(read.paths, read), read.look)
        for name, read in readers.items()
    }
    sizes = {"width": 8, "blocks": (1, 1, 1, 1)} if sample else {}
    with seeded(0, "ntu backbones"):
        backbones = {"Video": InflatedResNet50(classes, **sizes), "Skeleton": HCN(classes)}
    labels = [_place(name)[3] - 1 for name in samples]
    splits = paired_splits(list(map(split_of, samples)), labels)
    notes = {"root": str(root), "sample": sample, "actions": actions.ACTIONS if sample else {}}
    modalities = modalities_of(backbones, inputs, weights, head, pooling="time")
    edition = f"cross-{protocol}" + f" of {classes} actions" * (classes != 60)
    return Task(
        "ntu", None, classes, "accuracy", modalities, splits, SAMPLE if sample else PAPER,
        SearchSettings(epochs=3 if sample else None, selection="successive_halving"),
        notes | left_out, SAMPLE_BACKBONES if sample else {}, protocol=edition,
    )  # fmt: skip


_NAME = re.compile(r"(S\d{3}C\d{3}P\d{3}R\d{3}A\d{3})(_rgb\.avi|\.skeleton)", re.IGNORECASE)
KINDS = ("_rgb.avi", ".skeleton")
#: The released code's folder of copies.
COPIES = "nturgb+d_rgb_256x256_30"
#: What ``videos`` calls all folders but that one.
ORIGINALS = "originals"
#: Folders that systems make for themselves: begin with one of these, as .Trash and @eaDir do, …
MARKS = ".@#$"
#: … or are called so.
OF_SYSTEMS = {"System Volume Information", "lost+found", "__MACOSX"}


def _place(name: str) -> tuple[int, int, int, int]:
    """Setup, camera, subject and action from a sample's name."""
    return int(name[1:4]), int(name[5:8]), int(name[9:12]), int(name[17:20])


def _splits(
    classes: int, protocol: str, train: tuple[int, ...] | None
) -> Callable[[str], str | None]:
    """A function from a sample's name to its split, or to None if it is in no split."""
    if type(classes) is not int or classes not in PROTOCOLS:
        raise TaskError("classes", quoted(classes), ", ".join(map(str, PROTOCOLS)))
    if protocol not in PROTOCOLS[classes]:
        edition = f" of {classes} actions" * (protocol in sum(PROTOCOLS.values(), ()))
        allowed = ", ".join(map(repr, PROTOCOLS[classes]))
        raise TaskError("protocol", f"{quoted(protocol)}{edition}", allowed)
    everyone = range(1, SUBJECTS[classes] + 1)
    validators = () if protocol == "setup" else VALIDATION_SUBJECTS
    trainers = everyone
    if protocol == "subject":
        trainers = TRAIN_SUBJECTS
        if classes == 120:
            validators += MORE_VALIDATION_SUBJECTS
            trainers += MORE_TRAIN_SUBJECTS
    known = [subject for subject in trainers if subject not in validators]
    testers = [s for s in everyone if s not in known and s not in validators]
    train = known if train is None else train
    if not isinstance(train, list | tuple) or not train:
        raise TaskError("train_subjects", quoted(train), "a tuple of subjects")
    for subject in train:
        if subject not in known:
            held_out = {"validation": validators, "test": testers}
            split = "".join(f", who is in {s}" for s, they in held_out.items() if subject in they)
            raise TaskError("train_subjects", f"{subject!r}{split}", ", ".join(map(str, known)))

    def split_of(name: str) -> str | None:
        setup, camera, subject, _ = _place(name)
        tests = protocol == "view" and camera == TEST_CAMERA or protocol == "setup" and setup % 2
        if subject in testers or tests:
            return "test"
        if subject in validators or protocol == "setup" and setup in VALIDATION_SETUPS:
            return "validation"
        return "train" if subject in train else None

    return split_of


def _samples(
    root: Path, classes: int, folder: str | None
) -> tuple[dict[str, tuple[str, str]], dict[str, int]]:
    """Name → video and skeleton of each sample below ``root``, and counts of those left out."""
    found: dict[str, dict[str, list[str]]] = {kind: {} for kind in KINDS}
    others = set()
    for name, kind, path in _walk(root) if root.is_dir() else ():
        _, _, subject, action = _place(name)
        if not 1 <= action <= classes or not 1 <= subject <= SUBJECTS[classes]:
            others.add(name)
        elif kind == ".skeleton" or _is_in(folder, Path(path).relative_to(root).parts[:-1]):
            found[kind].setdefault(name, []).append(path)
    if not all(found.values()):
        counts = " and ".join(f"{len(found[k])} files SsssCcccPpppRrrrAaaa{k}" for k in KINDS)
        counts += f" of {classes} actions, {len(others)} samples of others" if others else ""
        where = "in or below this folder" + f" (videos: in {folder!r})" * (folder is not None)
        remedy = "classes=120 reads NTU RGB+D 120" if others and classes == 60 else ""
        remedy = remedy or "set data_root to their folder, or BMNAS_DATA to one that holds 'ntu'"
        raise DataError(
            f"{root}: found {counts} {where}; allowed: both, as NTU RGB+D is distributed; {remedy}"
        )
    videos, skeletons = (_one_each(root, kind, found[kind]) for kind in KINDS)
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
    notes |= {"unpaired": len(reasons), "other_actions": len(others)}
    return {name: pair for name, pair in pairs.items() if all(pair)}, notes


def _is_in(folder: str | None, parts: tuple[str, ...]) -> bool:
    """Whether a path of these folders is in the ``folder`` that was asked for."""
    if folder in (None, ".", ORIGINALS):
        return {None: True, ".": not parts, ORIGINALS: COPIES not in parts}[folder]
    wanted = Path(folder).parts
    return any(parts[i : i + len(wanted)] == wanted for i in range(len(parts)))


def _one_each(root: Path, kind: str, places: dict[str, list[str]]) -> dict[str, str]:
    """The path of each sample; of several, that of the released code's copy of a video."""
    found, preferred = {}, []
    for name, paths in places.items():
        copies = [path for path in paths if COPIES in Path(path).relative_to(root).parts]
        if len(paths) > 1 and len(copies) == 1 and kind == "_rgb.avi":
            preferred.append((copies[0], next(path for path in paths if path != copies[0])))
        elif len(paths) > 1:
            remedy = "videos=FOLDER reads those in one folder" * (kind == "_rgb.avi")
            remedy = remedy or f"take one of them out of {root}"
            raise DataError(paths[1], f"{name} also at {paths[0]}", f"once; {remedy}")
        found[name] = (copies or paths)[0]
    if preferred:
        copy, original = preferred[0]
        text = f"{root}: found two videos of {len(preferred):,} samples; those in {COPIES!r} are "
        text += f"read, such as {copy} and not {original}; videos={ORIGINALS!r} would read the "
        warnings.warn(f"{text}others", DataNotice, stacklevel=4)
    return found


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
        inner[:] = sorted(n for n in inner if n[0] not in MARKS and n not in OF_SYSTEMS)
        for match in filter(None, map(_NAME.fullmatch, sorted(names))):
            yield match[1].upper(), match[2].lower(), os.path.join(folder, match[0])
