"""NTU RGB+D: which samples are used, the readers, malformed files, and the synthetic sample."""

import os
import pickle
import re
import tempfile
import time
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bmnas_core.errors import BmnasError, DataNotice
from bmnas_core.runtime import generator
from bmnas_core.tasks import DataError, DataWarning, TaskError
from bmnas_core.tasks.files import asset, cached_folder, package
from bmnas_core.tasks.paper.ntu import (
    SAMPLE_SHARES,
    SEARCH_SUBJECTS,
    TEST_SUBJECTS,
    TRAIN_SUBJECTS,
    VALIDATION_SUBJECTS,
    ntu,
)
from bmnas_core.tasks.paper.ntu_readers import (
    SkeletonReader,
    VideoReader,
    read_skeleton,
    read_video,
)
from bmnas_core.tasks.paper.samples import actions

ID = "72057594037931101"


def skeleton_text(frames, *, header=None, joints=25) -> str:
    """A skeleton file's text. ``frames``: for each, body id → its (25, 3) joints."""
    lines = [str(len(frames) if header is None else header)]
    for bodies in frames:
        lines.append(str(len(bodies)))
        for body, xyz in bodies.items():
            lines += [f"{body} 0 1 1 1 1 0 0.02 -0.18 2", str(joints)]
            for x, y, z in np.broadcast_to(xyz, (25, 3)):
                lines.append(f"{x} {y} {z} 277.4 191.8 1036.2 519.1 -0.2 0.05 0.96 -0.1 2")
    return "\n".join(lines) + "\n"


def written(tmp_path, text, name="S001C001P001R001A001.skeleton") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def walking(frames: int, speed: float = 0.1, at: float = 0.0) -> list[np.ndarray]:
    """Bodies whose joint j is at (at + j/10, speed·frame, 3)."""
    joints = np.arange(25) / 10
    return [
        np.stack([at + joints, np.full(25, speed * t), np.full(25, 3.0)], 1) for t in range(frames)
    ]


def video(path: Path, frames: int, size=(64, 48), codec="mpeg4", noise=0) -> Path:
    """A video whose frame t is grey of level 4·t on the left half and red on the right."""
    av = package("av")
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=30)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p" if codec == "mpeg4" else "yuvj420p"
        stream.bit_rate = 4_000_000
        for t in range(frames):
            picture = np.full((size[1], size[0], 3), 4 * t, np.uint8)
            picture[:, size[0] // 2 :] = (200, 20, 20)
            if noise:
                picture ^= np.random.default_rng(t).integers(
                    noise, size=picture.shape, dtype=np.uint8
                )
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return path


def name_of(subject: int, camera: int = 1, action: int = 1, repetition: int = 1) -> str:
    return f"S001C{camera:03d}P{subject:03d}R{repetition:03d}A{action:03d}"


def tree(root: Path, names, kinds=("_rgb.avi", ".skeleton")) -> Path:
    """Write empty files to the data set's own folders."""
    folders = {"_rgb.avi": root / "nturgb+d_rgb", ".skeleton": root / "nturgb+d_skeletons"}
    for kind in kinds:
        folders[kind].mkdir(parents=True, exist_ok=True)
        for name in names:
            (folders[kind] / f"{name}{kind}").touch()
    return root


@pytest.fixture(autouse=True)
def small_backbones(monkeypatch, request):
    """A small network where a test is about files and needs none of 47 million weights."""
    if "paper_backbones" not in request.fixturenames:
        from bmnas_core.tasks.paper import ntu as module

        full = module.InflatedResNet50
        monkeypatch.setattr(
            module,
            "InflatedResNet50",
            lambda classes, **sizes: full(classes, **(sizes or {"width": 2, "blocks": (1,) * 4})),
        )


@pytest.fixture
def paper_backbones():
    """For tests that build the paper's own backbones."""


@pytest.fixture(scope="session")
def sample_folder() -> Path:
    """The sample's files in the cache. Tests must not write to it."""
    return cached_folder("ntu", actions.make, SAMPLE_SHARES)


EVERYONE = sorted(name_of(s, c, a) for s in range(1, 41) for c in (1, 2, 3) for a in (1, 60))


# --- splits


def people(task, split: str) -> set[tuple[int, int]]:
    """Subject and camera of every sample of a split, from the names of its files."""
    names = task.modalities[0].inputs.names
    found = [
        re.search(r"C(\d{3})P(\d{3})", Path(names[i]).name.upper()).groups()
        for i in task.items(split, "Video")
    ]
    return {(int(subject), int(camera)) for camera, subject in found}


def test_subjects_are_split_as_in_the_paper(tmp_path):
    task = ntu(str(tree(tmp_path, EVERYONE)))
    assert task.protocol == "cross-subject" and task.rule is None
    assert task.classes == 60 and task.metric == "accuracy"
    cameras = (1, 2, 3)
    for split, subjects in {
        "train": (1, 4, 8, 13, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38),
        "validation": (2, 5, 9, 14),
        "test": (3, 6, 7, 10, 11, 12, 20, 21, 22, 23, 24, 26, 29, 30, 32, 33, 36, 37, 39, 40),
    }.items():
        assert people(task, split) == {(s, c) for s in subjects for c in cameras}
    assert set(task.split("train").labels.tolist()) == {0, 59}


def test_in_the_cross_view_protocol_camera_1_tests_and_held_out_subjects_validate(tmp_path):
    task = ntu(str(tree(tmp_path, EVERYONE)), protocol="view")
    assert task.protocol == "cross-view" and task.variant == "protocol cross-view"
    assert people(task, "test") == {(s, 1) for s in range(1, 41)}
    assert people(task, "validation") == {(s, c) for s in (2, 5, 9, 14) for c in (2, 3)}
    rest = set(range(1, 41)) - {2, 5, 9, 14}
    assert people(task, "train") == {(s, c) for s in rest for c in (2, 3)}


def test_a_task_with_fewer_training_subjects_reads_no_others(tmp_path):
    task = ntu(str(tree(tmp_path, EVERYONE)), train_subjects=SEARCH_SUBJECTS)
    assert {s for s, _ in people(task, "train")} == set(SEARCH_SUBJECTS) < set(TRAIN_SUBJECTS)
    assert len(task.modalities[0].inputs) == 6 * (8 + len(VALIDATION_SUBJECTS + TEST_SUBJECTS))


#: NTU RGB+D 120: old subjects act in setups 1 to 17, and all new ones in setups 18 to 32.
EVERYONE_120 = [
    f"S{setup:03d}C001P{subject:03d}R001A{action:03d}"
    for setup, subjects, actions in (
        (1, 41, (1, 60)),
        (8, 41, (60,)),
        (18, 107, (61, 120)),
        (24, 107, (61,)),
        (25, 107, (61,)),
    )
    for subject in range(1 if setup < 18 else 41, subjects)
    for action in actions
]


def test_ntu_120_is_split_by_subjects_as_its_authors_did(tmp_path):
    task = ntu(str(tree(tmp_path, EVERYONE_120)), classes=120)
    assert task.classes == 120 and task.protocol == "cross-subject of 120 actions"
    assert task.notes["other_actions"] == 0
    who = {split: {subject for subject, _ in people(task, split)} for split in task.splits}
    trainers = {
        1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38, 45, 46, 47, 49,
        50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89, 91, 92, 93,
        94, 95, 97, 98, 100, 103,
    }  # fmt: skip
    assert len(trainers) == 53 and who["train"] | who["validation"] == trainers
    assert who["validation"] == {2, 5, 9, 14, 54, 83, 95, 103}
    assert who["test"] == set(range(1, 107)) - trainers
    for split in task.splits.values():  # actions of both halves
        assert {0, 119} <= set(split.labels.tolist())
    assert [len(part) for part in (who["train"], who["test"])] == [45, 53]


def test_ntu_120_is_split_by_setups_too(tmp_path):
    task = ntu(str(tree(tmp_path, EVERYONE_120)), classes=120, protocol="setup")
    names = task.modalities[0].inputs.names
    setups = {
        split: {int(Path(names[i]).name[1:4]) for i in task.items(split, "Video")}
        for split in task.splits
    }
    assert setups == {"train": {18}, "validation": {8, 24}, "test": {1, 25}}
    assert task.protocol == "cross-setup of 120 actions"


def test_the_135_halves_that_ntu_120_lacks_are_left_out(tmp_path):
    missing = asset("ntu/missing_skeletons.txt").read_text().splitlines()
    tree(tmp_path, EVERYONE_120 + missing, ["_rgb.avi"])
    tree(tmp_path, EVERYONE_120, [".skeleton"])
    task = ntu(str(tmp_path), classes=120)
    assert task.notes["missing_skeletons"] == 535


def test_only_the_second_half_of_ntu_120_is_named_as_what_it_is(tmp_path):
    tree(tmp_path, [name for name in EVERYONE_120 if name.endswith("A061")])
    with pytest.raises(
        DataError, match=r"found 0 .* of 60 actions, 198 samples of others .*classes=120 re"
    ):
        ntu(str(tmp_path))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"classes": 100}, "classes: found 100; allowed: 60, 120"),
        ({"classes": True}, "classes: found True; allowed: 60, 120"),
        (
            {"classes": 120, "protocol": "view"},
            "protocol: found 'view' of 120 actions; allowed: 'subject', 'setup'",
        ),
        (
            {"protocol": "setup"},
            "protocol: found 'setup' of 60 actions; allowed: 'subject', 'view'",
        ),
        (
            {"classes": 120, "train_subjects": (54,)},
            "found 54, who is in validation; allowed: 1, 4",
        ),
        ({"protocol": "camera"}, "protocol: found 'camera'; allowed: 'subject', 'view'"),
        (
            {"train_subjects": (1, 2)},
            "train_subjects: found 2, who is in validation; allowed: 1, 4,",
        ),
        ({"train_subjects": (3,)}, "train_subjects: found 3, who is in test; allowed: 1, 4, 8"),
        ({"train_subjects": (41,)}, "train_subjects: found 41; allowed: 1, 4, 8, 13"),
        ({"train_subjects": ()}, r"train_subjects: found \(\); allowed: a tuple of subjects"),
        ({"train_subjects": 1}, "train_subjects: found 1; allowed: a tuple of subjects"),
        (
            {"protocol": "view", "train_subjects": (3, 5)},
            "train_subjects: found 5, who is in validation; allowed: 1, 3, 4, 6",
        ),
        ({"weights": {"Depth": "x"}}, "weights: found 'Depth'; allowed: Video, Skeleton"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, options, message):
    with pytest.raises(TaskError, match=message):
        ntu(str(tree(tmp_path, EVERYONE)), **options)


def test_weights_that_do_not_fit_are_refused_by_the_name_of_their_file(tmp_path):
    (tmp_path / "video.pt").write_bytes(b"no weights")
    with pytest.raises(BmnasError, match="video.pt"):
        ntu(str(tree(tmp_path, EVERYONE)), weights={"Video": str(tmp_path / "video.pt")})


def test_weights_are_read_into_the_backbone_of_their_modality(tmp_path):
    from bmnas_core.backbones.paper.checkpoints import save_checkpoint

    root = str(tree(tmp_path / "data", EVERYONE))
    other = ntu(root).modalities[1].backbone
    for weight in other.parameters():
        nn.init.constant_(weight, 0.5)
    save_checkpoint(other, tmp_path / "skeleton.safetensors")
    task = ntu(root, weights={"Skeleton": str(tmp_path / "skeleton.safetensors")})
    video, skeleton = (modality.backbone for modality in task.modalities)
    assert all((weight == 0.5).all() for weight in skeleton.parameters())
    assert not all((weight == 0.5).all() for weight in video.parameters())


# --- which files there are


def test_halves_are_paired_by_name_and_single_ones_left_out_and_counted(tmp_path):
    """The first video has no skeleton, so pairs by position would all be wrong."""
    tree(tmp_path, EVERYONE)
    (tmp_path / f"nturgb+d_skeletons/{EVERYONE[0]}.skeleton").unlink()
    (tmp_path / f"nturgb+d_rgb/{EVERYONE[-1]}_rgb.avi").unlink()
    with pytest.warns(DataWarning) as caught:
        task = ntu(str(tmp_path))
    (message,) = (str(warning.message) for warning in caught)
    assert message.startswith("samples: 2 left out: ")
    assert f"{EVERYONE[0]}_rgb.avi: found no {EVERYONE[0]}.skeleton" in message
    assert f"{EVERYONE[-1]}.skeleton: found no {EVERYONE[-1]}_rgb.avi" in message
    assert task.notes["unpaired"] == 2
    videos, skeletons = (modality.inputs.names for modality in task.modalities)
    stem = re.compile(r"S\d+C\d+P\d+R\d+A\d+")
    names = [stem.search(Path(path).name)[0] for path in videos]
    assert names == [stem.search(Path(path).name)[0] for path in skeletons] == EVERYONE[1:-1]
    for split in task.splits.values():
        assert torch.equal(split.index[:, 0], split.index[:, 1])
        actions_read = [int(names[i][-3:]) for i in split.index[:, 0]]
        assert actions_read == (split.labels + 1).tolist()


def test_samples_whose_skeletons_the_authors_miss_are_left_out_and_counted(tmp_path):
    missing = asset("ntu/missing_skeletons.txt").read_text().splitlines()
    missing = [name for name in missing if int(name[-3:]) <= 60]
    assert len(missing) == 302 == len(set(missing)) and missing == sorted(missing)
    tree(tmp_path, EVERYONE + missing, ["_rgb.avi"])
    tree(tmp_path, EVERYONE + missing[:7], [".skeleton"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task = ntu(str(tmp_path))
    assert task.notes["missing_skeletons"] == 302
    assert not any(name in path for name in missing for path in task.modalities[0].inputs.names)


def test_samples_of_ntu_120_are_left_out_and_counted(tmp_path):
    others = [name_of(1, action=61), name_of(1, action=120), name_of(106, action=3)]
    task = ntu(str(tree(tmp_path, EVERYONE + others)))
    assert task.notes["other_actions"] == 3
    assert len(task.modalities[0].inputs) == len(EVERYONE)


def test_files_may_be_anywhere_below_the_folder_beside_other_files(tmp_path):
    for i, name in enumerate(EVERYONE):
        folder = tmp_path / "deep" / f"part {i % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}_rgb.avi").touch()
        (folder / f"{name}.skeleton").touch()
        (folder / f"._{name}.skeleton").touch()
        (folder / f"{name}.txt").touch()
    with suppress(OSError):  # on Windows not everyone may
        (tmp_path / "deep" / "round").symlink_to(tmp_path, target_is_directory=True)
    assert len(ntu(str(tmp_path)).modalities[0].inputs) == len(EVERYONE)


def test_two_files_for_the_same_half_of_a_sample_are_refused_with_both_places(tmp_path):
    tree(tmp_path, EVERYONE)
    for kind, remedy in {
        "_rgb.avi": "videos=FOLDER reads those in one folder",
        ".skeleton": f"take one of them out of {tmp_path}",
    }.items():
        copy = tmp_path / "copy" / f"{EVERYONE[3]}{kind}"
        copy.parent.mkdir(exist_ok=True)
        copy.touch()
        with pytest.raises(DataError, match=f"allowed: once; {remedy}$") as caught:
            ntu(str(tmp_path))
        folder = "nturgb+d_rgb" if kind == "_rgb.avi" else "nturgb+d_skeletons"
        assert str(copy) in str(caught.value)
        assert str(Path(folder, f"{EVERYONE[3]}{kind}")) in str(caught.value)
        copy.unlink()


def test_the_released_codes_copies_are_read_unless_another_folder_is_named(tmp_path):
    tree(tmp_path, EVERYONE)
    copies = tmp_path / "nturgb+d_rgb_256x256_30"
    copies.mkdir()
    for name in EVERYONE[5:]:
        (copies / f"{name}_rgb.avi").touch()
    with pytest.warns(
        DataNotice, match=r"two videos of 235 samples; those in 'nturgb.d_rgb_256x"
    ) as w:
        task = ntu(str(tmp_path))
    assert "videos='originals' would read the others" in str(w[0].message)
    folders = Counter(Path(path).parent.name for path in task.modalities[0].inputs.names)
    assert folders == {"nturgb+d_rgb_256x256_30": 235, "nturgb+d_rgb": 5}
    for videos in ("originals", "nturgb+d_rgb"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            task = ntu(str(tmp_path), videos=videos)
        paths = map(Path, task.modalities[0].inputs.names)
        assert {path.parent.name for path in paths} == {"nturgb+d_rgb"}
    with pytest.raises(
        DataError, match=r"found 0 files .*_rgb.avi and 240 .* \(videos: in 'rgb'\)"
    ):
        ntu(str(tmp_path), videos="rgb")


LAYOUTS = {  # where the original videos are → what else may be asked for
    "": ".",
    "rgb/s001": "rgb",
    "a/rgb": "a/rgb",
}


@pytest.mark.parametrize("place", LAYOUTS)
def test_the_originals_can_be_asked_for_wherever_they_are(tmp_path, place):
    tree(tmp_path, EVERYONE, [".skeleton"])
    for folder in (place, "nturgb+d_rgb_256x256_30"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name in EVERYONE:
            (tmp_path / folder / f"{name}_rgb.avi").touch()
    for videos in ("originals", LAYOUTS[place]):
        paths = map(Path, ntu(str(tmp_path), videos=videos).modalities[0].inputs.names)
        assert {path.parent for path in paths} == {tmp_path / place}


@pytest.mark.parametrize(
    "folder",
    [
        ".Trash-0/files", "@eaDir", "a/.snapshot/b", "#recycle", "#snapshot/old", "@Recycle",
        "$RECYCLE.BIN", "__MACOSX", "lost+found",
    ],
)  # fmt: skip
def test_folders_that_systems_make_are_not_looked_into(tmp_path, folder):
    tree(tmp_path, EVERYONE)
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / f"{EVERYONE[0]}.skeleton").touch()
    assert len(ntu(str(tmp_path)).modalities[0].inputs) == len(EVERYONE)


def test_names_may_be_in_small_letters_and_endings_in_capitals(tmp_path):
    tree(tmp_path, EVERYONE)
    for path in list(tmp_path.rglob("S*.*")):
        path.rename(path.with_name(path.name.lower() if "P00" in path.name else path.name.upper()))
    task = ntu(str(tmp_path))
    assert len(task.modalities[0].inputs) == len(EVERYONE)
    assert people(task, "test") == {(s, c) for s in TEST_SUBJECTS for c in (1, 2, 3)}


@pytest.mark.parametrize("kinds, counts", [((), (0, 0)), ((".skeleton",), (0, 240))])
def test_a_folder_without_both_kinds_of_files_is_refused_with_what_was_found(
    tmp_path, monkeypatch, kinds, counts
):
    monkeypatch.setenv("BMNAS_DATA", str(tmp_path))
    tree(tmp_path / "ntu", EVERYONE, kinds)
    message = (
        f"{tmp_path / 'ntu'}: found {counts[0]} files SsssCcccPpppRrrrAaaa_rgb.avi and {counts[1]} "
        "files SsssCcccPpppRrrrAaaa.skeleton in or below this folder; allowed: both"
    )
    with pytest.raises(DataError, match=re.escape(message)):
        ntu()


def test_a_split_without_samples_is_refused(tmp_path):
    names = [name_of(s) for s in (1, 2)]
    with pytest.raises(TaskError, match="ntu: split 'test' is empty"):
        ntu(str(tree(tmp_path, names)))


@pytest.mark.slow
def test_a_task_of_many_samples_is_loaded_without_opening_a_file(tmp_path):
    """The files are empty, so reading any would fail."""
    names = [
        name_of(s, c, a, r)
        for s in range(1, 41)
        for c in (1, 2, 3)
        for a in range(1, 22)
        for r in (1, 2)
    ]
    tree(tmp_path, names)
    known = len({*names} & {*asset("ntu/missing_skeletons.txt").read_text().split()})
    start = time.process_time()
    task = ntu(str(tmp_path))
    assert time.process_time() - start < 4  # seconds; it takes 0.3
    assert len(names) == 5040 and sum(map(len, task.splits.values())) == 5040 - known
    for modality in task.modalities:
        with pytest.raises(DataError):
            modality.inputs[0]


def test_a_changed_file_changes_the_version_of_its_modality_alone(tmp_path):
    root = tree(tmp_path, EVERYONE)
    before = ntu(str(root)).modalities
    os.utime(root / f"nturgb+d_rgb/{EVERYONE[0]}_rgb.avi", (1, 1))
    after = ntu(str(root)).modalities
    assert before[0].inputs.version != after[0].inputs.version
    assert before[1].inputs.version == after[1].inputs.version
    assert ntu(str(root), bgr=True).modalities[0].inputs.version != after[0].inputs.version


# --- skeletons


def test_joints_are_metres_from_joint_2_of_the_first_body_in_every_frame(tmp_path):
    path = written(tmp_path, skeleton_text([{ID: body} for body in walking(5)]))
    skeleton = read_skeleton(path)
    assert skeleton.shape == (3, 5, 25, 2) and skeleton.dtype == np.float32
    expected = np.arange(25) / 10 - 0.1
    assert np.allclose(skeleton[0, :, :, 0], expected, atol=1e-6)
    assert np.allclose(skeleton[1:, :, :, 0], 0) and not skeleton[..., 1].any()


def test_of_several_bodies_the_most_frequent_and_then_the_most_moving_are_kept(tmp_path):
    still, moving, brief = walking(6, 0, 1.0), walking(6, 0.5, 2.0), walking(6, 9.0, 3.0)
    frames = [
        {"1": still[t], "2": moving[t]} | ({"3": brief[t]} if t < 5 else {}) for t in range(6)
    ]
    skeleton = read_skeleton(written(tmp_path, skeleton_text(frames)))
    assert np.allclose(skeleton[0, :, 1, 0], 0)  # the moving one is the origin
    assert np.allclose(skeleton[0, :, 1, 1], -1.0)  # the still one stands a metre beside it
    assert np.allclose(skeleton[1, :, 1, 1], [-0.5 * t for t in range(6)])


def test_bodies_keep_their_places_and_are_zeros_when_missing(tmp_path):
    first, second = walking(6, 0.5), walking(6, 0.25, 1.0)
    frames = [
        {"8": second[0]},
        {"8": second[1], "9": first[1]},
        {},
        {"9": first[3], "8": second[3]},
        {"9": first[4]},
        {"9": first[5], "8": second[5]},
    ]
    skeleton = read_skeleton(written(tmp_path, skeleton_text(frames)))
    assert skeleton.shape[1] == 5  # without the frame that has no body
    there = skeleton.any((0, 2))
    assert there.tolist() == [
        [False, True],
        [True, True],
        [True, True],
        [True, False],
        [True, True],
    ]
    # The first body is missing at first; the origin is where it first appears, at height 0.5.
    assert np.allclose(skeleton[1, 0, :, 1], 0 - 0.5)
    assert np.allclose(skeleton[1, [1, 2, 4], 1, 1], [0.25 - 0.5, 0.75 - 1.5, 1.25 - 2.5])


def standing(x: float) -> np.ndarray:
    """A body whose joints are at (x, (1 + x)·j/10, 3): its height says who it is."""
    return np.stack([np.full(25, x), (1 + x) * np.arange(25) / 10, np.full(25, 3.0)], 1)


def clip(tracks: dict[str, tuple[float, list[range]]]) -> list[dict]:
    """Frames with bodies: tracking number → who it is, and when it is there."""
    end = max(span.stop for _, spans in tracks.values() for span in spans)
    return [
        {name: standing(x) for name, (x, spans) in tracks.items() if any(t in s for s in spans)}
        for t in range(end)
    ]


def who_is_where(tmp_path, tracks: dict) -> list[list[float | None]]:
    """Who is in the first place of each frame that is read, and who in the second."""
    skeleton = read_skeleton(written(tmp_path, skeleton_text(clip(tracks))))
    heights = skeleton[1, :, 11] - skeleton[1, :, 1]
    there = skeleton.any((0, 2))
    return [
        [round(float(h) - 1, 1) if seen else None for h, seen in zip(*both, strict=True)]
        for both in zip(heights.T, there.T, strict=True)
    ]


def test_a_person_whose_tracking_number_changes_stays_one_person(tmp_path):
    """As in shahroudy/NTURGB-D, issue 6: first one number, then two new ones."""
    one, new, other = range(25), range(25, 40), range(25, 40)
    tracks = {"1": (-0.5, [one]), "2": (-0.5, [new]), "3": (0.5, [other])}
    first, second = who_is_where(tmp_path, tracks)
    assert first == [-0.5] * 40 and second == [None] * 25 + [0.5] * 15


@pytest.mark.parametrize("starts", [(0, 20), (0, 14, 28), (0, 1, 2, 3, 39)])
def test_a_person_with_several_numbers_stays_one_person(tmp_path, starts):
    spans = enumerate(map(range, starts, (*starts[1:], 40)))
    first, second = who_is_where(tmp_path, {str(k): (-0.5, [span]) for k, span in spans})
    assert first == [-0.5] * 40 and second == [None] * 40


@pytest.mark.parametrize(
    "who, back",
    [
        ((0.0, 0.6), 20),  # somebody else, farther off than a person moves in a frame
        ((0.0, 0.0), 51),  # after more than a second nobody knows
    ],
)
def test_two_who_may_be_different_stay_two(tmp_path, who, back):
    tracks = {"1": (who[0], [range(20)]), "2": (who[1], [range(back, back + 15)])}
    first, second = who_is_where(tmp_path, tracks)
    assert first == [who[0]] * 20 + [None] * 15 and second == [None] * 20 + [who[1]] * 15


def test_tracks_are_joined_nearest_in_time_and_then_in_space(tmp_path):
    always, early = (3.0, [range(20)]), (0.0, [range(10)])
    soon_elsewhere, late_there = (2.0, [range(11, 20)]), (0.0, [range(14, 20)])
    tracks = {"1": early, "2": always, "3": late_there, "4": soon_elsewhere}
    assert who_is_where(tmp_path, tracks) == [[3.0] * 20, [0.0] * 10 + [None] + [2.0] * 9]
    farther, nearer = (2.0, [range(12, 20)]), (0.5, [range(12, 20)])
    tracks = {"1": early, "2": always, "3": farther, "4": nearer}
    assert who_is_where(tmp_path, tracks) == [[3.0] * 20, [0.0] * 10 + [None] * 2 + [0.5] * 8]


def test_a_frame_with_a_third_person_alone_is_kept_in_the_place_of_the_latest(tmp_path):
    third = (2.0, [range(22, 28), range(30, 33)])
    tracks = {"1": (0.0, [range(30)]), "2": (1.0, [range(25)]), "3": third}
    first, second = who_is_where(tmp_path, tracks)
    assert first == [0.0] * 30 + [2.0] * 3 and second == [1.0] * 25 + [None] * 8


@pytest.mark.slow
@given(
    st.dictionaries(
        st.integers(0, 6),
        st.tuples(st.floats(-0.9, 3), st.lists(st.booleans(), min_size=12, max_size=12)),
        min_size=1,
        max_size=6,
    ).filter(lambda tracks: any(any(seen) for _, seen in tracks.values()))
)
def test_every_frame_with_a_body_is_kept_and_no_body_is_invented(tracks):
    frames = [
        {str(k): standing(x) for k, (x, seen) in tracks.items() if seen[t]} for t in range(12)
    ]
    with tempfile.TemporaryDirectory() as folder:
        skeleton = read_skeleton(written(Path(folder), skeleton_text(frames)))
    there = skeleton.any((0, 2))
    with_bodies = [frame for frame in frames if frame]
    assert len(there) == len(with_bodies) and there.any(1).all()
    assert all(n <= min(2, len(f)) for n, f in zip(there.sum(1), with_bodies, strict=True))


@pytest.mark.parametrize(
    "frames, message",
    [
        ([{}] * 10_001, "line 1: found 10001 frames; allowed: at most 10000"),
        ([{str(t): standing(0)} for t in range(129)], "found 129 tracking numbers; allowed: at m"),
    ],
)
def test_a_file_of_more_than_any_sensor_sees_is_refused(tmp_path, frames, message):
    path = written(tmp_path, skeleton_text(frames))
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}: {message}"):
        read_skeleton(path)


@pytest.mark.slow
def test_128_tracks_are_joined_in_a_moment(tmp_path):
    tracks = {str(t): (t / 100, [range(t, t + 1)]) for t in range(128)}
    start = time.process_time()
    assert len(who_is_where(tmp_path, tracks)[0]) == 128
    assert time.process_time() - start < 5  # seconds; it takes 0.5


def test_time_is_resampled_linearly_to_32_frames(tmp_path):
    bodies = [{ID: b} for b in walking(64, 0)]
    for t, body in enumerate(bodies):
        body[ID] = body[ID].copy()
        body[ID][5] = (0.1, t, 3.0)  # one joint rises a metre a frame
    path = written(tmp_path, skeleton_text(bodies))
    item = SkeletonReader((str(path),))(0, None)
    assert item.shape == (3, 32, 25, 2) and item.dtype == torch.float32
    assert torch.allclose(item[1, :, 5, 0], torch.arange(32) * 2 + 0.5)
    few = written(tmp_path, skeleton_text(bodies[:3]), "few.skeleton")
    steps = SkeletonReader((str(few),))(0, None)[1, :, 5, 0]
    assert steps.min() == 0 and steps.max() == 2 and (steps.diff() >= 0).all()


def test_a_body_that_goes_away_does_not_shrink_on_the_way(tmp_path):
    one, other = walking(50), walking(50, at=2.0)
    frames = [
        {ID: a} | ({"2": b} if 13 <= t < 29 else {})
        for t, (a, b) in enumerate(zip(one, other, strict=True))
    ]
    path = written(tmp_path, skeleton_text(frames))
    second = SkeletonReader((str(path),))(0, None)[..., 1]
    widths = second[0, :, 24] - second[0, :, 0]
    there = (second != 0).any(2).any(0)
    assert 9 <= int(there.sum()) <= 12
    torch.testing.assert_close(widths[there], torch.full((int(there.sum()),), 2.4))
    assert (widths[~there] == 0).all()


def test_augmented_skeletons_are_stretches_of_at_least_half_the_clip_and_64_frames(tmp_path):
    bodies = [{ID: b} for b in walking(200, 0)]
    for t, body in enumerate(bodies):
        body[ID] = body[ID].copy()
        body[ID][5] = (0.1, t, 3.0)
    path = str(written(tmp_path, skeleton_text(bodies)))

    def spans(reader):
        ends = [reader(0, generator(0, i))[1, [0, -1], 5, 0].tolist() for i in range(25)]
        return np.array(ends)

    first, last = spans(SkeletonReader((path,))).T
    length = (last - first) * 32 / 31
    assert 100 <= length.min() < 115 and 175 < length.max() <= 200
    assert first.min() < 10 and first.max() > 40
    first, last = spans(SkeletonReader((path,), min_frames=190)).T
    assert ((last - first) * 32 / 31 >= 189).all()
    reader = SkeletonReader((path,))
    assert torch.equal(reader(0, generator(0, 1)), reader(0, generator(0, 1)))
    whole = [{ID: b} for b in walking(40)]
    short = SkeletonReader((str(written(tmp_path, skeleton_text(whole), "short.skeleton")),))
    assert torch.equal(short(0, generator(0, 1)), short(0, None))


GOOD = skeleton_text([{ID: body} for body in walking(3)])


def with_line(number: int, line: str) -> str:
    lines = GOOD.splitlines()
    lines[number - 1] = line
    return "\n".join(lines)


JOINT = "0.1 0.2 3.0 277.4 191.8 1036.2 519.1 -0.2 0.05 0.96 -0.1 2"


@pytest.mark.parametrize(
    "text, message",
    [
        (GOOD[: len(GOOD) // 2], "line 46: found the end of the file; allowed: as many frames"),
        ("\n".join(GOOD.splitlines()[:50]), "line 51: found the end of the file; allowed: as many"),
        ("", "line 1: found the end of the file; allowed"),
        (with_line(4, "24"), "line 4: found 24 joints; allowed: 25"),
        (with_line(9, "0.1 0.2 NaN" + JOINT[11:]), "line 9: found '0.1 0.2 NaN'; allowed: three"),
        (with_line(9, "0.1 inf 3.0" + JOINT[11:]), "line 9: found '0.1 inf 3.0'; allowed: three"),
        (with_line(9, "0.1 1e99 3.0" + JOINT[11:]), "line 9: found '0.1 1e99 3.0'; allowed: three"),
        (with_line(61, "0.1 x 3.0" + JOINT[11:]), "line 61: found '0.1 x 3.0'; allowed: three coo"),
        (with_line(9, JOINT[:-2]), "line 9: found 11 values; allowed: 12"),
        (with_line(3, "72057594037931101"), "line 3: found 1 values; allowed: 10"),
        (with_line(2, "-1"), "line 2: found '-1'; allowed: the number of bodies"),
        (with_line(2, "2"), r"line 30: found 1 values; allowed: 10"),
        (
            with_line(1, "4"),
            "line 86: found the end of the file; allowed: as many frames as line 1",
        ),
        (with_line(1, "2"), "line 58: found '1'; allowed: the end, after 2 frames"),
        (GOOD + "and more\n", "line 86: found 'and more'; allowed: the end, after 3 frames"),
        (with_line(1, "three"), "line 1: found 'three'; allowed: the number of frames"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "found byte 0x89; allowed: text"),
        (bytes(300), "line 1: found .*; allowed: the number of frames"),
        (skeleton_text([{}] * 4), "found no body in 4 frames; allowed: at least one"),
        ("0\n", "found no body in 0 frames; allowed: at least one"),
        (
            skeleton_text([{ID: walking(1)[0]}]).replace("\n1\n", "\n2\n", 1)
            + skeleton_text([{ID: walking(1)[0]}]).split("\n1\n")[1],
            "line 56: found a body twice in one frame",
        ),
    ],
)
def test_a_malformed_skeleton_is_refused_with_its_line(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}: {message}"):
        SkeletonReader((str(path),))(0, None)


def test_lines_may_end_as_on_windows_and_unused_columns_may_hold_anything(tmp_path):
    text = GOOD.replace("1036.2", "-1.#IND").replace("277.4", "NaN").replace("\n", "\r\n")
    read = read_skeleton(written(tmp_path, text))
    assert np.array_equal(read, read_skeleton(written(tmp_path, GOOD, "b.skeleton")))


def test_a_missing_skeleton_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="none.skeleton: cannot be read"):
        read_skeleton(tmp_path / "none.skeleton")


# --- videos


def levels(frames: np.ndarray) -> list[float]:
    """The frames' numbers, from the grey level of their left half."""
    return (frames[:, 8:-8, 4:-40].mean((1, 2, 3)) / 4).tolist()


@pytest.mark.parametrize("codec, suffix", [("mpeg4", "avi"), ("mjpeg", "avi")])
def test_frames_are_spread_evenly_over_a_video(tmp_path, codec, suffix):
    path = video(tmp_path / f"a.{suffix}", 50, codec=codec)
    frames = read_video(path, 8, 64)
    assert frames.shape == (8, 64, 64, 3) and frames.dtype == np.uint8
    assert np.allclose(levels(frames), [0, 7, 14, 21, 28, 35, 42, 49], atol=1)
    assert np.allclose(levels(read_video(path, 3, 64, share=0.5)), [12, 24, 37], atol=1)
    red = frames[:, 8:-8, 44:-8].mean((0, 1, 2))
    assert np.allclose(red, (200, 20, 20), atol=12)


def test_frames_of_a_short_video_are_repeated(tmp_path):
    frames = read_video(video(tmp_path / "a.avi", 3), 8, 64)
    assert np.allclose(levels(frames), [0, 0, 0, 0, 1, 1, 1, 2], atol=1)


def test_videos_are_normalised_as_imagenet_is_and_may_have_blue_first(tmp_path):
    path = str(video(tmp_path / "a.avi", 10))
    item = VideoReader((path,))(0, None)
    assert item.shape == (8, 256, 256, 3) and item.dtype == torch.float32
    frames = torch.from_numpy(read_video(path)).float() / 255
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(item, (frames - mean) / deviation, atol=1e-6)
    blue_first = VideoReader((path,), bgr=True)(0, None)
    assert torch.allclose(blue_first, (frames.flip(-1) - mean) / deviation, atol=1e-6)
    assert VideoReader((path,), frames=4, size=20)(0, None).shape == (4, 20, 20, 3)


def test_augmented_videos_are_central_parts_of_at_least_half_the_clip(tmp_path):
    path = str(video(tmp_path / "a.avi", 60, size=(64, 64)))
    reader = VideoReader((path,), frames=2, size=64)
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    spans = []
    for i in range(30):
        frames = (reader(0, generator(0, i)).numpy() * deviation + mean) * 255
        spans.append(levels(frames))
    first, last = np.array(spans).T
    assert np.allclose(first + last, 59, atol=2)
    assert 13 < first.max() <= 16 and first.min() < 4
    assert torch.equal(reader(0, generator(0, 3)), reader(0, generator(0, 3)))


def test_frames_are_counted_if_the_header_claims_none(tmp_path):
    path = video(tmp_path / "a.avi", 20)
    content = bytearray(path.read_bytes())
    for tag, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):
        at = content.index(tag) + offset
        assert int.from_bytes(content[at : at + 4], "little") == 20
        content[at : at + 4] = bytes(4)
    path.write_bytes(content)
    assert np.allclose(levels(read_video(path, 2, 64)), [0, 19], atol=1)


def damaged(tmp_path, how: str) -> Path:
    path = tmp_path / "S001C001P001R001A001_rgb.avi"
    if how == "undecodable":
        path.write_bytes(bytes(range(256)) * 40)
    elif how == "empty":
        path.touch()
    elif how == "without frames":
        video(path, 0)
    elif how == "truncated":
        video(path, 40, noise=128)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "only a header":
        video(path, 40)
        path.write_bytes(path.read_bytes()[:200])
    elif how == "garbage inside":
        video(path, 40)
        content = bytearray(path.read_bytes())
        start = content.index(b"movi") + 4
        content[start:] = bytes((7 * i) % 251 for i in range(len(content) - start))
        path.write_bytes(content)
    elif how == "unknown codec":
        video(path, 40)
        content = path.read_bytes()
        assert content.count(b"FMP4") == 2
        path.write_bytes(content.replace(b"FMP4", b"Zzz?"))
    elif how == "sound alone":
        av = package("av")
        with av.open(str(path), "w") as file:
            stream = file.add_stream("pcm_s16le", rate=8000, layout="mono")
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
            sound.rate = 8000
            file.mux(stream.encode(sound))
    return path


@pytest.mark.parametrize(
    "how, message",
    [
        ("undecodable", "found no video that can be decoded"),
        ("empty", "found no video that can be decoded"),
        ("without frames", "found no video"),
        ("truncated", r"found \d+ frames; allowed: the 40 it claims"),
        ("only a header", "found no video"),
        ("garbage inside", "found"),
        ("sound alone", "found no video stream in a known codec; allowed: one"),
        ("unknown codec", "found no video stream in a known codec; allowed: one"),
        ("not there", "found no video that can be decoded"),
    ],
)
def test_a_damaged_video_is_refused_by_the_name_of_its_file(tmp_path, how, message):
    path = damaged(tmp_path, how)
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}: {message}"):
        VideoReader((str(path),))(0, None)


# --- the task as a whole


def test_readers_can_be_sent_to_other_processes(tmp_path):
    path = str(written(tmp_path, GOOD))
    reader = pickle.loads(pickle.dumps(SkeletonReader((path,))))
    assert torch.equal(reader(0, None), SkeletonReader((path,))(0, None))


@pytest.mark.slow
def test_the_sample_is_in_the_data_sets_format_and_split_by_its_protocols(sample_folder):
    size = sum(path.stat().st_size for path in sample_folder.rglob("*.*"))
    assert size < 40e6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task = ntu(str(sample_folder))
        view = ntu(str(sample_folder), protocol="view")
    assert [len(task.splits[s]) for s in ("train", "validation", "test")] == [264, 96, 108]
    assert sum(map(len, view.splits.values())) == 468
    for split in task.splits.values():
        assert {f"A{label + 1:03d}" for label in split.labels} == set(actions.ACTIONS)
    assert {camera for _, camera in people(task, "train")} == {1, 2, 3}
    counts = set()
    for path in sample_folder.rglob("*.skeleton"):
        lines = path.read_text().splitlines()
        counts |= {int(line) for line in lines[1:] if line in ("0", "1", "2", "3")}
    assert counts == {0, 1, 2, 3}


@pytest.mark.slow
def test_in_the_sample_skeletons_show_the_motion_and_videos_the_object(sample_folder):
    """Neither is enough by design: every motion has two actions, every object four."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    script = actions.SCRIPT.values()
    assert len({*script}) == 12
    for part, times in ((0, 2), (1, 4)):
        assert set(Counter(scene[part] for scene in script).values()) == {times}
    task = ntu(sample=True)
    scenes, bodies, hues = {}, {}, {}
    for split in ("train", "test"):
        rows = task.splits[split].index[:, 0]
        labels = task.splits[split].labels.tolist()
        scenes[split] = np.array([actions.SCRIPT[f"A{label + 1:03d}"] for label in labels])
        bodies[split] = task.modalities[1].inputs[rows][:, :, ::4, :, 0].flatten(1).numpy()
        # Share of the pixels that are clearly red, green, blue.
        frames = task.modalities[0].inputs[rows].flatten(1, 3)
        others = torch.stack([frames[..., [1, 2]], frames[..., [0, 2]], frames[..., [0, 1]]])
        hues[split] = (frames - others.amax(-1).movedim(0, -1) > 1).float().mean(1).numpy()

    def score(inputs, part: int) -> float:
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        classifier.fit(inputs["train"], scenes["train"][:, part])
        return classifier.score(inputs["test"], scenes["test"][:, part])

    # The motion alone fixes the object in half of all cases, by the script.
    assert score(bodies, 0) > 0.9 and score(bodies, 1) < 0.67
    assert score(hues, 1) > 0.85 and score(hues, 0) < 0.5


@pytest.mark.slow
def test_the_sample_does_not_depend_on_the_state_of_global_generators(tmp_path):
    for folder in ("a", "b"):
        np.random.seed(len(list(tmp_path.iterdir())))
        for kind in ("nturgb+d_rgb", "nturgb+d_skeletons"):
            (tmp_path / folder / kind).mkdir(parents=True)
        for action in ("A001", "A016"):
            actions._sample(tmp_path / folder, 4, action, 1)
    made = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("S*"))
    assert len(made) == 4
    for path in made:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


@pytest.mark.slow
def test_the_sample_is_read_smaller_by_smaller_backbones(sample_folder):
    task = ntu(sample=True)
    assert (task.config.L, task.config.N, task.config.M) == (8, 2, 2)
    assert task.search_config.selection == "successive_halving" and task.classes == 60
    assert task.notes["actions"]["A028"] == "phone call" and task.notes["sample"]
    video, skeleton = task.modalities
    assert set(task.backbone_config) == {"Video", "Skeleton"}
    assert video.inputs[0].shape == (8, 48, 48, 3) and skeleton.inputs[0].shape == (3, 32, 25, 2)
    assert Path(video.inputs.names[0]).parents[1] == sample_folder
    for modality in task.modalities:
        features = modality.backbone(modality.inputs[:2])
        assert [f.shape[1] for f in features] == list(modality.channels.values())
        assert modality.backbone.classify(features).shape == (2, 60)
    again = ntu(sample=True)
    assert [m.fingerprint() for m in again.modalities] == [m.fingerprint() for m in task.modalities]
    augmented = skeleton.inputs.read(0, generator(0, "x"))
    assert augmented.shape == (3, 32, 25, 2) and not torch.equal(augmented, skeleton.inputs[0])


@pytest.mark.slow
def test_the_papers_pipeline_runs_on_the_samples_files(sample_folder, paper_backbones):
    task = ntu(str(sample_folder))
    config = task.config
    assert (config.C, config.L, config.N, config.M, config.epochs) == (128, 8, 2, 2, 30)
    assert (config.batch_size, config.dropout, config.restart) == (96, 0.2, 1)
    assert (config.max_lr, config.min_lr, config.weight_decay) == (1e-3, 1e-6, 1e-4)
    assert task.channels == {
        "Video_1": 512, "Video_2": 1024, "Video_3": 2048, "Video_4": 2048,
        "Skeleton_1": 128, "Skeleton_2": 256, "Skeleton_3": 1024, "Skeleton_4": 512,
    }  # fmt: skip
    video, skeleton = task.modalities
    assert video.inputs[0].shape == (8, 256, 256, 3) and skeleton.inputs[0].shape == (3, 32, 25, 2)
    assert not video.backbone.training and {video.pooling, skeleton.pooling} == {"time"}
