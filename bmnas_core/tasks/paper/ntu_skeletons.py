"""NTU RGB+D's skeletons: the joints of two bodies from a file, resampled over time."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..inputs import DataError, wrong

JOINTS, BODIES = 25, 2
#: Joint 2 in the data set's own count, the middle of the spine.
ORIGIN = 1
#: Metres from the sensor at which no body can be.
FAR = 1000.0


@dataclass(frozen=True)
class SkeletonReader:
    """Item → skeleton for the Skeleton backbone: (3, frames, 25, 2), see :func:`read_skeleton`.

    It is resampled linearly over time, between frames in which a body is present. With a generator
    it is a random stretch of the clip, as in the released code: 50 to 100 % of its frames, at least
    ``min_frames`` or the whole clip.

    Attributes:
        paths: one file per item.
        frames: number of frames after resampling.
        min_frames: least number of frames of a random stretch.
    """

    paths: tuple[str, ...] = field(repr=False)
    frames: int = 32
    min_frames: int = 64

    def __call__(self, item: int, random: torch.Generator | None) -> Tensor:
        skeleton = torch.from_numpy(read_skeleton(self.paths[item]))
        if random is not None:
            whole = skeleton.shape[1]
            share = 0.5 + 0.5 * torch.rand((), generator=random).item()
            kept = min(max(int(whole * share), self.min_frames), whole)
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


def read_skeleton(path: str | os.PathLike) -> np.ndarray:
    """Two bodies of a ``.skeleton`` file: (3, frames, 25, 2) metres from joint 2 of the first.

    Of more than two bodies the two that are in the most frames are kept; of equals, those that move
    most. They come in this order, and each keeps its place for the whole clip. Frames with neither
    are left out. A missing body is zeros; the released code leaves it at the sensor. The origin
    stays where it was in frames without the first body.

    Raises DataError for a malformed file, with the line, and for one without any body.
    """
    ids, times, joints, count = _parse(path)
    rows: dict[str, list[int]] = {}
    for row, body in enumerate(ids):
        rows.setdefault(body, []).append(row)
    if not rows:
        raise wrong(path, f"no body in {count} frames", "at least one")

    def rank(body: str) -> tuple[int, float]:
        return -len(rows[body]), -float(joints[rows[body]].var(0).sum())

    places = np.zeros((count, BODIES, JOINTS, 3), np.float32)
    there = np.zeros((count, BODIES), bool)
    for slot, body in enumerate(sorted(rows, key=rank)[:BODIES]):
        when = np.array(times)[rows[body]]
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
    ids, times, rows, starts = [], [], [], []
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
        found = repr(lines.lines[lines.at][:40])
        raise lines.wrong(lines.at, found, f"the end, after {frames} frames")
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
            self.lines = Path(path).read_bytes().decode("ascii").rstrip().splitlines()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            raise wrong(path, f"byte {byte:#04x}", "text") from None

    def wrong(self, line: int, found: str, allowed: object) -> DataError:
        return wrong(f"{self.path}: line {line + 1}", found, allowed)

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
                raise self.wrong(self.at - n + i, f"{len(values)} values", width)
        return fields
