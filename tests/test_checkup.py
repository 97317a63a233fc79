"""`bmnas data check`: it looks at what it says it looked at, and finds what is damaged."""

import json
import re
import shutil

import numpy as np
import pytest

from bmnas_core.tasks import DATA_SETS, DataError, files
from bmnas_core.tasks.checkup import Checkup
from bmnas_core.tasks.files import package

SUBJECTS = (1, 2, 3)  # one of each split
FRAMES = 36  # of a gesture, of which 32 are read


def films(root) -> None:
    """MM-IMDB as folders of single films, two in each split."""
    random = np.random.default_rng(0)
    for split in ("train", "dev", "test"):
        (root / split).mkdir(parents=True)
        for i in range(2):
            image = random.integers(0, 256, (3, 256, 160), np.uint8)
            for part, values in {
                "image": image, "text": random.normal(size=300), "label": np.eye(23)[i],
            }.items():  # fmt: skip
                np.save(root / split / f"{part}_{i:06d}.npy", values)


def raw_films(root) -> None:
    """The raw archive of MM-IMDB, a film in each split."""
    (root / "dataset").mkdir(parents=True)
    for one in "abc":
        about = {"plot": "A ship sinks.", "genres": ["Drama"]}
        (root / "dataset" / f"{one}.json").write_text(json.dumps(about))
        picture(root / "dataset" / f"{one}.jpeg")
    (root / "split.json").write_text(json.dumps({"train": ["a"], "dev": ["b"], "test": ["c"]}))


def picture(path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    package("PIL.Image").fromarray(pixels).save(path, "JPEG")


def clips(root) -> None:
    """NTU RGB+D, a clip in each split."""
    av = package("av")
    root.mkdir(parents=True)
    joints = ["0.1 0.2 3.0 1 1 1 1 0 0 0 0 2"] * 25
    frame = ["1", "7 0 1 1 1 1 0 0 0 2", "25", *joints]
    for subject in SUBJECTS:
        name = f"S001C001P{subject:03d}R001A001"
        (root / f"{name}.skeleton").write_text("\n".join(["20"] + 20 * frame) + "\n")
        with av.open(str(root / f"{name}_rgb.avi"), "w") as file:
            stream = file.add_stream("mpeg4", rate=30)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
            for _ in range(20):
                file.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
            file.mux(stream.encode())


def gestures(root) -> None:
    """EgoGesture, a gesture in each subset, longer than what is read of it."""
    database = {}
    for subject, subset in zip(SUBJECTS, ("training", "validation", "testing"), strict=True):
        scene = root / f"Subject{subject:02d}" / "Scene1"
        for folder in ("Color/rgb1", "Depth/depth1"):
            for number in range(1, FRAMES + 1):
                picture(scene / folder / f"{number:06d}.jpg")
        about = {"label": "Wave", "start_frame": "1", "end_frame": f"{FRAMES}"}
        name = f"Subject{subject:02d}/Scene1/Color/rgb1"
        database[name] = {"subset": subset, "annotations": about}
    content = {"labels": ["Wave", "Fist"], "database": database}
    (root / "gestures.json").write_text(json.dumps(content))


MAKERS = {"films": ("mmimdb", films), "raw films": ("mmimdb", raw_films)}
MAKERS |= {"clips": ("ntu", clips), "gestures": ("egogesture", gestures)}


@pytest.fixture
def made(request, tmp_path, monkeypatch):
    """The folder and the data set of a kind, with nothing damaged."""
    name, make = MAKERS[request.param]
    make(tmp_path / name)
    monkeypatch.setenv("BMNAS_DATA", str(tmp_path))
    return tmp_path / name, DATA_SETS[name]


def short(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    """The middle is lost; both ends are as they were."""
    a, b = len(content) // 10, 9 * len(content) // 10
    return content[:a] + b"\x55" * (b - a) + content[b:]


PAGE = b"<html>403 Forbidden</html>"
#: Kind of data set, file, damage → what a quick look says of it; None if it takes decoding.
DAMAGE = [
    ("films", "train/image_000001.npy", lambda c: PAGE, "found no array .*magic string"),
    ("films", "train/image_000001.npy", short, "found 61,504 bytes for shape .* allowed: 123,008"),
    ("films", "train/image_000001.npy", lambda c: b"", "found an empty file"),
    (
        "raw films",
        "dataset/b.jpeg",
        lambda c: PAGE,
        "found a file that begins b'<html>",
    ),
    (
        "raw films",
        "dataset/b.jpeg",
        short,
        "found a JPEG file without its end",
    ),
    ("raw films", "dataset/b.jpeg", lambda c: b"", "found an empty file"),
    (
        "clips",
        "S001C001P002R001A001_rgb.avi",
        lambda c: PAGE,
        "found a file that begins b'<html>",
    ),
    ("clips", "S001C001P002R001A001_rgb.avi", short, r"found [\d,]+ bytes; allowed: the [\d,]+ it"),
    ("clips", "S001C001P002R001A001_rgb.avi", lambda c: b"", "found an empty file"),
    ("clips", "S001C001P002R001A001_rgb.avi", flipped, None),
    (
        "clips",
        "S001C001P002R001A001_rgb.avi",
        lambda c: c[: int(0.97 * len(c))],
        r"allowed: the [\d,]+ it",
    ),
    (
        "clips",
        "S001C001P002R001A001_rgb.avi",
        lambda c: c[:4] + b"\xff" * 4 + c[8 : len(c) // 2],
        "found an AVI file that was not written to its end",
    ),
    (
        "clips",
        "S001C001P002R001A001.skeleton",
        lambda c: PAGE,
        "line 1: found b'<html>",
    ),
    (
        "clips",
        "S001C001P002R001A001.skeleton",
        lambda c: c[:-9],
        "last line: found 8 values; a",
    ),
    ("clips", "S001C001P002R001A001.skeleton", lambda c: b"", "found an empty file"),
    ("clips", "S001C001P002R001A001.skeleton", flipped, None),
    (
        "gestures",
        "Subject02/Scene1/Color/rgb1/000036.jpg",
        lambda c: PAGE,
        "found a file that begins",
    ),
    (
        "gestures",
        "Subject02/Scene1/Color/rgb1/000001.jpg",
        short,
        "found a JPEG file without",
    ),
    ("gestures", "Subject02/Scene1/Depth/depth1/000010.jpg", lambda c: b"", "found an empty file"),
    (
        "gestures",
        "Subject02/Scene1/Color/rgb1/000007.jpg",
        None,
        "found no 000007.jpg; all",
    ),
    ("gestures", "Subject02/Scene1/Color/rgb1/000001.jpg", None, "found no 000001.jpg; all"),
    ("gestures", "Subject02/Scene1/Color/rgb1/000007.jpg", short, "without its end"),
    ("gestures", "Subject02/Scene1/Color/rgb1/000007.jpg", flipped, None),
    ("gestures", "Subject02/Scene1/Color/rgb1/000036.jpg", flipped, None),
    ("films", "train/image_000001.npy", lambda c: c[:60] + b"(" * 20 + c[80:], "found no array"),
]


@pytest.mark.parametrize("made", MAKERS, indirect=True)
@pytest.mark.slow
def test_whole_files_are_right_and_it_is_said_how_that_is_known(made):
    _, data = made
    quick, deep = data.examine(), data.examine(deep=True, workers=2)
    assert quick.problems == deep.problems == []
    n = 6 if (made[0] / "dev").exists() else 3
    looked = "look right by names, sizes, first and last bytes; not decoded, as --deep would"
    for found, how in ((quick, looked), (deep, "decoded, without an error")):
        assert (
            str(found)
            == {
                "mmimdb": f"{n} Image: {how}; {n} Text: read, all are right",
                "ntu": f"{n} Video and {n} Skeleton: {how}",
                "egogesture": f"{n} RGB and {n} Depth: {how}",
            }[data.name]
        )


@pytest.mark.parametrize(("made", "file", "damage", "said"), DAMAGE, indirect=["made"])
@pytest.mark.slow
def test_a_damaged_file_is_found_by_a_look_or_by_decoding(made, file, damage, said):
    root, data = made
    content = (root / file).read_bytes()
    (root / file).unlink()
    if damage:
        (root / file).write_bytes(damage(content))
    quick, deep = data.examine(), data.examine(deep=True, workers=1)
    if said is None:
        assert quick.problems == []
    else:
        (problem,) = quick.problems
        assert problem.startswith(str(root))

        assert re.search(said, problem), problem
    (problem,) = deep.problems
    assert problem.startswith(str(root)) and "\n" not in problem
    assert deep.kinds().total() == 1


def test_what_loading_says_is_a_problem_and_what_it_decided_is_none(tmp_path, monkeypatch):
    clips(tmp_path / "ntu")
    copies = tmp_path / "ntu" / "nturgb+d_rgb_256x256_30"
    copies.mkdir()
    for path in list((tmp_path / "ntu").glob("*.avi")):
        shutil.copyfile(path, copies / path.name)
    (tmp_path / "ntu" / "S001C001P001R002A001.skeleton").write_text("0")
    monkeypatch.setenv("BMNAS_DATA", str(tmp_path))
    found = DATA_SETS["ntu"].examine({"videos": "nturgb+d_rgb_256x256_30"})
    without = "S001C001P001R002A001.skeleton: found no S001C001P001R002A001_rgb.avi"
    assert found.notices == [] and found.problems == [f"{tmp_path / 'ntu' / without}"]
    found = DATA_SETS["ntu"].examine()
    assert "found two videos of 3 samples" in found.notices[0] and len(found.problems) == 1


def test_options_of_files_with_known_checksums_are_refused():
    with pytest.raises(DataError, match="digits: options: found rule; allowed: none; the"):
        DATA_SETS["digits"].examine({"rule": "sum"})
    found = DATA_SETS["digits"].examine()
    assert str(found).endswith("files: all are right by their checksums") and not found.problems


@pytest.mark.slow
def test_another_annotation_is_checked_if_it_is_named(tmp_path, monkeypatch):
    gestures(tmp_path / "egogesture")
    root = tmp_path / "egogesture"
    content = json.loads((root / "gestures.json").read_text())
    content["database"] |= {"Subject01/Scene1/Color/rgb2": next(iter(content["database"].values()))}
    (root / "more.json").write_text(json.dumps(content))
    monkeypatch.setenv("BMNAS_DATA", str(tmp_path))
    (problem,) = DATA_SETS["egogesture"].examine().problems
    assert "found gestures.json, more.json" in problem and "annotation" in problem
    assert DATA_SETS["egogesture"].examine({"annotation": root / "gestures.json"}).problems == []
    (problem,) = DATA_SETS["egogesture"].examine({"annotation": root / "more.json"}).problems
    assert problem.startswith("Subject01/Scene1/Color/rgb2: no folder")
    (root / "._more.json").write_bytes(b"Mac OS X")  # as it leaves on other disks
    for name in ("gestures.json", "more.json"):  # as they are called in the error
        problems = DATA_SETS["egogesture"].examine({"annotation": name}).problems
        assert len(problems) == (name == "more.json")
    (root / "more.json").unlink()
    assert DATA_SETS["egogesture"].examine().problems == []


def test_a_data_set_that_is_missing_is_a_problem_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("BMNAS_DATA", str(tmp_path))
    for name in ("mmimdb", "ntu", "egogesture"):
        (problem,) = DATA_SETS[name].examine(deep=True).problems
        assert str(files.data_root() / name) in problem


def test_tables_that_are_read_as_a_whole_are_said_to_be():
    found = DATA_SETS["diabetes"].examine()
    assert not found.problems and str(found).endswith(": read, all are right")


def test_problems_are_counted_by_kind_whatever_their_files_are_called():
    problems = [f"/d/S{k:03d}.skeleton: line {k}: found b'<{k}>'; allowed: x" for k in range(12)]
    clips = [f"S{k:03d}C001P001R001A001" for k in range(30)]
    problems += [f"/d/{clip}.skeleton: found no {clip}_rgb.avi" for clip in clips]
    kinds = {"found no FILE": 30, "line N: found …": 12}
    assert list(Checkup(problems=problems).kinds().items()) == list(kinds.items())


def test_what_is_left_out_is_listed_one_by_one(tmp_path, monkeypatch):
    clips(tmp_path / "ntu")
    single = [f"S001C001P001R002A{k:03d}" for k in range(1, 6)]
    for name in single:
        (tmp_path / "ntu" / f"{name}.skeleton").write_text("0")
    monkeypatch.setenv("BMNAS_DATA", str(tmp_path))
    found = DATA_SETS["ntu"].examine()
    assert [name in problem for name, problem in zip(single, found.problems, strict=True)]
    assert found.kinds() == {"found no FILE": 5}


def test_files_that_nobody_looked_at_are_counted(tmp_path, monkeypatch):
    clips(tmp_path / "ntu")
    (tmp_path / "ntu" / "S018C001P001R001A061.skeleton").write_text("<html>")
    monkeypatch.setenv("BMNAS_DATA", str(tmp_path))
    found = DATA_SETS["ntu"].examine()
    assert not found.problems
    assert found.notices == ["samples of other actions: 1, not looked at"]


def test_workers_that_cannot_start_are_no_damage(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(28, "No space left on device")

    gestures(tmp_path / "egogesture")
    monkeypatch.setenv("BMNAS_DATA", str(tmp_path))
    monkeypatch.setattr("multiprocessing.Queue", refused)
    found = DATA_SETS["egogesture"].examine(deep=True, workers=1)
    assert not found.problems and str(found).endswith("decoded, without an error")
    (notice,) = found.notices
    assert notice.startswith("worker processes: found no shared memory for locks (No space left")


@pytest.mark.slow
def test_a_frame_put_back_is_found(tmp_path, monkeypatch):
    gestures(tmp_path / "egogesture")
    monkeypatch.setenv("BMNAS_DATA", str(tmp_path))
    frame = tmp_path / "egogesture/Subject01/Scene1/Color/rgb1/000003.jpg"
    content = frame.read_bytes()
    frame.unlink()
    assert len(DATA_SETS["egogesture"].examine().problems) == 1
    frame.write_bytes(content)
    assert DATA_SETS["egogesture"].examine().problems == []


def test_frames_may_be_in_a_folder_of_images(tmp_path, monkeypatch):
    gestures(tmp_path / "images")
    (tmp_path / "images" / "gestures.json").rename(tmp_path / "gestures.json")
    found = DATA_SETS["egogesture"].examine({"data_root": tmp_path})
    assert not found.problems and str(found).startswith("3 RGB and 3 Depth: look right")
