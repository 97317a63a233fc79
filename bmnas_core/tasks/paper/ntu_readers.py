"""NTU RGB+D's readers: frames of a video, and the joints of two bodies, spread over time."""

import math
import os
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import in_line, quoted
from ...reading import require_file
from ..files import ends_of, package, read_bytes
from ..inputs import DataError
from .common import DEVIATION, MEAN, MOST_PIXELS

JOINTS, BODIES = 25, 2
#: Joint 2 in the data set's own count, the middle of the spine.
ORIGIN = 1
#: Metres from the sensor at which no body can be.
FAR = 1000.0
#: The ending and the format of the data set's videos. In other formats a file of a kilobyte may
#: claim any number of frames, for all of which FFmpeg makes room as it opens the file.
ENDING, FORMAT = ".avi", "avi"
#: Frames of a video; those of NTU RGB+D have a few hundred.
MOST_VIDEO_FRAMES = 100_000
#: Two tracks are certainly one person's if the second begins within so many frames, a second, and
#: its body within so many metres from where the first ended.
SAME_FRAMES, SAME_METRES = 30, 0.5
#: Bounds of a ``.skeleton`` file. Clips last a few seconds; the sensor tracks six bodies at a time.
MOST_BYTES, MOST_FRAMES, MOST_TRACKS = 64 << 20, 10_000, 128


# --- videos


@dataclass(frozen=True)
class VideoReader:
    """Item → video for the Video backbone: (frames, size, size, 3), normalised as ImageNet is.

    Frames are spread evenly over the clip. With a generator they are spread over a central part of
    it, a random share of 50 to 100 %, as in the released code.
    """

    paths: tuple[str, ...] = field(repr=False)  # one file per item
    frames: int = 8
    size: int = 256  # height and width in pixels
    bgr: bool = False  # blue first; means and deviations stay, as in the released code

    def __call__(self, item: int, random: torch.Generator | None) -> Tensor:
        share = 1.0 if random is None else 1 - 0.5 * torch.rand((), generator=random).item()
        video = read_video(self.paths[item], self.frames, self.size, share)
        video = torch.from_numpy(video).flip(-1) if self.bgr else torch.from_numpy(video)
        return (video / 255 - torch.tensor(MEAN)) / torch.tensor(DEVIATION)

    def look(self, item: int) -> None:
        """Raises DataError for a file that is no AVI or shorter than it says, by its ends."""
        path = self.paths[item]
        size, first, _ = ends_of(path)
        if first[:4] != b"RIFF" or first[8:12] != b"AVI ":
            raise DataError(path, f"a file that begins {quoted(first[:12])}", "an AVI file")
        claimed = 8 + int.from_bytes(first[4:8], "little")
        if claimed == 8 + 0xFFFFFFFF:  # its writer has not come back to fill this in
            raise DataError(path, "an AVI file that was not written to its end", "a whole one")
        if size < claimed:
            raise DataError(path, f"{size:,} bytes", f"the {claimed:,} it claims")


def read_video(
    path: str | os.PathLike, frames: int = 8, size: int = 256, share: float = 1.0
) -> np.ndarray:
    """Frames spread evenly over a video, resized to squares: (frames, size, size, 3) bytes, RGB.

    They are spread over this share of the clip's length, around its middle. Frames of a short video
    are repeated. Only the chosen frames are kept in memory. Raises DataError for a file that is no
    video, is empty, or is truncated: with less than nine tenths of the frames its header claims.
    """
    av = package("av")
    try:
        with _open(path) as file:
            stream = file.streams.video[0]
            packets = sum(packet.size > 0 for packet in file.demux(stream))  # without decoding
            count = claimed = max(stream.frames, packets)
        if count > MOST_VIDEO_FRAMES:
            raise DataError(path, f"{count:,} frames", f"{MOST_VIDEO_FRAMES:,} at most")
        while count:
            first = (count - int(count * share)) // 2
            chosen = np.linspace(first, count - 1 - first, frames).astype(int).tolist()
            found = _decode(path, chosen, size)
            if len(found) > chosen[-1]:
                return np.stack([found[i] for i in chosen])
            if 10 * len(found) < 9 * claimed:
                raise DataError(path, f"{len(found)} frames", f"the {claimed} it claims")
            count = len(found)  # some codecs give fewer frames than the file has packets
    except (av.error.FFmpegError, OSError) as error:
        if isinstance(error, DataError):
            raise
        why = error.strerror or in_line(error)
        raise DataError(f"{path}: found no video that can be decoded ({why})") from None
    raise DataError(path, "no video frame", "at least one")


def _open(path: str | os.PathLike):
    """An open video, read as what its ending says and as nothing else.

    Some formats, such as play lists, are lists of other files.
    """
    require_file(path)
    if Path(path).suffix.lower() != ENDING:
        raise DataError(path, f"a file {Path(path).suffix or 'without ending'}", ENDING)
    file = package("av").open(os.fspath(path), format=FORMAT, metadata_errors="ignore")
    try:
        if not file.streams.video or file.streams.video[0].codec_context is None:
            raise DataError(path, "no video stream in a known codec", "one")
        codec = file.streams.video[0].codec_context
        if codec.width * codec.height > MOST_PIXELS:
            allowed = f"{MOST_PIXELS:,} pixels at most"
            raise DataError(path, f"frames of {codec.width} × {codec.height}", allowed)
    except DataError:
        file.close()
        raise
    # The worker processes that load batches already keep every core busy.
    codec.thread_count = 1
    codec.options = {"max_pixels": f"{MOST_PIXELS}"}  # frames may be larger than the header says
    return file


def _decode(path: str | os.PathLike, chosen: list[int], size: int) -> list[np.ndarray | None]:
    """All frames up to the last chosen one, resized; None for those that are not chosen."""
    reformatter = package("av").video.reformatter.VideoReformatter()
    resize = partial(reformatter.reformat, interpolation="BICUBIC")
    with _open(path) as file:
        frames = enumerate(islice(file.decode(video=0), chosen[-1] + 1))
        return [
            resize(frame, size, size, "rgb24").to_ndarray() if i in chosen else None
            for i, frame in frames
        ]


# --- skeletons


@dataclass(frozen=True)
class SkeletonReader:
    """Item → skeleton for the Skeleton backbone: (3, frames, 25, 2), see :func:`read_skeleton`.

    It is resampled linearly over time, between frames in which a body is present. With a generator
    it is a random stretch of the clip, as in the released code: 50 to 100 % of its frames, at least
    ``min_frames`` or the whole clip.
    """

    paths: tuple[str, ...] = field(repr=False)  # one file per item
    frames: int = 32  # after resampling
    min_frames: int = 64  # of a random stretch

    def __call__(self, item: int, random: torch.Generator | None) -> Tensor:
        skeleton = torch.from_numpy(read_skeleton(self.paths[item]))
        if random is not None:
            whole = skeleton.shape[1]
            share = 0.5 + 0.5 * torch.rand((), generator=random).item()
            kept = min(max(int(whole * share), self.min_frames), whole)
            first = int(torch.randint(whole - kept + 1, (), generator=random))
            skeleton = skeleton[:, first : first + kept]
        there = self._resampled((skeleton != 0).any(2).any(0).float()[None, :, None])
        skeleton = self._resampled(skeleton) / there.clamp(min=0.5)
        return skeleton * (there >= 0.5)

    def look(self, item: int) -> None:
        """Raises DataError for a file that does not begin or end as a skeleton file does."""
        path = self.paths[item]
        _, first, last = ends_of(path)
        start, end = first.split(b"\n", 1)[0].strip(), last.rstrip().rsplit(b"\n", 1)[-1].split()
        if not start.isdigit():
            raise DataError(f"{path}: line 1", quoted(start[:40]), "the number of frames")
        if len(end) != 12 and end != [b"0"]:
            raise DataError(f"{path}: last line", f"{len(end)} values", "12, of a joint")

    def _resampled(self, skeleton: Tensor) -> Tensor:
        """(coordinates, T, joints, bodies) → (coordinates, frames, joints, bodies)."""
        axes, _, joints, bodies = skeleton.shape
        flat = skeleton.permute(0, 2, 3, 1).flatten(0, 2)[None]
        flat = nn.functional.interpolate(flat, size=self.frames, mode="linear")
        return flat.reshape(axes, joints, bodies, self.frames).permute(0, 3, 1, 2).contiguous()


def read_skeleton(path: str | os.PathLike) -> np.ndarray:
    """Two bodies of a ``.skeleton`` file: (3, frames, 25, 2) metres from joint 2 of the first.

    The sensor gives a person a new number whenever it has lost them. So of more than two numbers,
    those that are never in one frame are joined until two persons remain: first those nearest in
    time, of equals those nearest in space. The last two are joined too, if the one appears within a
    second and half a metre of the other. Of more persons the two that are in the most frames are
    kept; of equals, those that move most. They come in this order, and each keeps its place for the
    whole clip. A frame with neither of them has somebody else, in the place of whoever was there
    nearest in time. Frames without a body are left out. A missing body is zeros; the released code
    leaves it at the sensor. The origin stays where it was in frames without the first body.

    Raises DataError for a malformed file, with the line, for one without any body, and for one that
    is longer than MOST_BYTES, MOST_FRAMES or MOST_TRACKS allow.
    """
    ids, times, joints, count = _parse(path)
    rows: dict[str, list[int]] = {}
    for row, body in enumerate(ids):
        rows.setdefault(body, []).append(row)
    if not rows:
        raise DataError(path, f"no body in {count} frames", "at least one")
    if len(rows) > MOST_TRACKS:
        raise DataError(path, f"{len(rows)} tracking numbers", f"at most {MOST_TRACKS}")
    when = np.array(times)
    persons = _joined([np.array(track) for track in rows.values()], when, joints)
    persons.sort(key=lambda own: (-len(own), -float(joints[own].var(0).sum())))
    places = np.zeros((count, BODIES, JOINTS, 3), np.float32)
    there = np.zeros((count, BODIES), bool)
    for slot, own in enumerate(persons[:BODIES]):
        places[when[own], slot], there[when[own], slot] = joints[own], True
    for own in persons[BODIES:]:
        left = own[~there[when[own]].any(1)]
        for stretch in np.split(left, np.flatnonzero(np.diff(when[left]) > 1) + 1):
            if len(stretch):
                apart = [_apart(stretch, person, when, joints) for person in persons[:BODIES]]
                slot = apart.index(min(apart))
                places[when[stretch], slot], there[when[stretch], slot] = joints[stretch], True
    places, there = places[there.any(1)], there[there.any(1)]
    latest = np.maximum.accumulate(np.where(there[:, 0], np.arange(len(there)), 0))
    latest = np.maximum(latest, there[:, 0].argmax())
    places -= places[latest, 0, ORIGIN][:, None, None]
    places *= there[:, :, None, None]
    return places.transpose(3, 0, 2, 1).copy()


def _joined(tracks: list[np.ndarray], when: np.ndarray, joints: np.ndarray) -> list[np.ndarray]:
    """Tracks, each the rows of one body, joined until the rest are of two persons or share frames.

    Two of them are of one person if they follow each other at one place.
    """
    apart = {}
    tracks = dict(enumerate(tracks))
    while len(tracks) > 1:
        for pair in combinations(tracks, 2):
            if pair not in apart:
                apart[pair] = _apart(*(tracks[k] for k in pair), when, joints)
        nearest, pair = min((apart[pair], pair) for pair in combinations(tracks, 2))
        frames, metres = nearest
        same = frames <= SAME_FRAMES and metres <= SAME_METRES
        if frames == math.inf or (len(tracks) <= BODIES and not same):
            break
        both = np.concatenate([tracks.pop(k) for k in pair])
        tracks[max([*tracks, *pair]) + 1] = both[when[both].argsort()]
    return list(tracks.values())


def _apart(
    one: np.ndarray, other: np.ndarray, when: np.ndarray, joints: np.ndarray
) -> tuple[float, float]:
    """Frames between two tracks where they are nearest in time, and metres between their bodies.

    Infinite for tracks that share a frame.
    """
    after = np.searchsorted(when[other], when[one]).clip(max=len(other) - 1)
    near = np.stack([after, (after - 1).clip(min=0)])
    frames = np.abs(when[other][near] - when[one])
    if not frames.min():
        return math.inf, math.inf
    side, row = np.unravel_index(frames.argmin(), frames.shape)
    metres = np.linalg.norm(joints[one[row]] - joints[other[near[side, row]]], axis=1).mean()
    return float(frames.min()), float(metres)


def _parse(path: str | os.PathLike) -> tuple[list[str], list[int], np.ndarray, int]:
    """Every body of every frame: its id, its frame, its (25, 3) joints; and how many frames."""
    lines = _Lines(path)
    ids, times, rows, starts = [], [], [], []
    frames = lines.count("number of frames")
    if frames > MOST_FRAMES:
        raise lines.wrong(0, f"{frames} frames", f"at most {MOST_FRAMES}")
    for frame in range(frames):
        bodies: list[str] = []
        for _ in range(lines.count("number of bodies")):
            bodies.append(lines.take(1, 10)[0][0])
            if (joints := lines.count("number of joints")) != JOINTS:
                raise lines.wrong(lines.at - 1, f"{joints} joints", JOINTS)
            starts.append(lines.at)
            rows += lines.take(JOINTS, 12)
        if len({*bodies}) != len(bodies):
            raise lines.wrong(lines.at - 1, "a body twice in one frame", "once")
        ids += bodies
        times += [frame] * len(bodies)
    if rest := lines.lines[lines.at :]:
        raise lines.wrong(lines.at, repr(rest[0][:40]), f"the end, after {frames} frames")
    joints = np.full((len(rows), 3), np.inf)
    with suppress(ValueError):  # what cannot be read stays infinite
        for i, row in enumerate(rows):
            joints[i] = [float(x) for x in row[:3]]
    for i in np.flatnonzero((~(np.abs(joints) < FAR)).any(1)):
        line = starts[i // JOINTS] + i % JOINTS
        raise lines.wrong(line, repr(" ".join(rows[i][:3])), "three coordinates in metres")
    return ids, times, joints.astype(np.float32).reshape(-1, JOINTS, 3), frames


class _Lines:
    """The lines of a text file, taken one after the other; errors name the line."""

    def __init__(self, path: str | os.PathLike):
        self.path, self.at = path, 0
        try:
            self.lines = read_bytes(Path(path), MOST_BYTES).decode("ascii").rstrip().splitlines()
        except UnicodeDecodeError as error:
            raise DataError(path, f"byte {error.object[error.start]:#04x}", "text") from None

    def wrong(self, line: int, found: str, allowed: object) -> DataError:
        return DataError(f"{self.path}: line {line + 1}", found, allowed)

    def take(self, n: int, width: int | None = None) -> list[list[str]]:
        """The values of each of the next ``n`` lines, ``width`` of them."""
        taken = [line.split() for line in self.lines[self.at : self.at + n]]
        if len(taken) < n:
            end = len(self.lines)
            raise self.wrong(end, "the end of the file", "as many frames as line 1 says")
        for line, values in enumerate(taken, self.at):
            if width and len(values) != width:
                raise self.wrong(line, f"{len(values)} values", width)
        self.at += n
        return taken

    def count(self, what: str) -> int:
        """A line with one whole number."""
        text = " ".join(self.take(1)[0])
        if not text.isdigit() or len(text) > 9:
            raise self.wrong(self.at - 1, repr(text[:40]), f"the {what}")
        return int(text)
