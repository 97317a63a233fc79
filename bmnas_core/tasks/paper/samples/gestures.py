"""A small data set in EgoGesture's format: rendered hands, filmed in colour and in depth.

All of it is synthetic. A gesture is a hand's shape, a movement along the line of sight and one
across it. Colour shows the shape but not the movement along the line of sight, since the hand is
always drawn at about the same size and the light flickers. Depth shows that movement but not the
shape, since its hand is a blob. Both show the movement across. So either modality alone
confuses each class with one other.
"""

import json
import math
from itertools import product
from pathlib import Path

import numpy as np

from ...files import package

AXES = {"Push": -1, "Pull": 1}
SHAPES = ("open_hand", "fist")
WAYS = {"towards_left": (-1, 0), "towards_right": (1, 0), "upward": (0, -1)}
#: Label → its parts.
PARTS = {"_".join(parts): parts for parts in product(AXES, SHAPES, WAYS)}
LABELS = tuple(PARTS)

#: Subset → number of subjects; each has two scenes of two videos of five gestures.
SUBJECTS = {"training": 14, "validation": 5, "testing": 5}
SCENES, VIDEOS, GESTURES = 2, 2, 5

WIDTH, HEIGHT = 64, 48


def make(folder: Path) -> None:
    """Write 480 gestures of 12 classes: ``SubjectNN/SceneM/{Color,Depth}/…`` and annotation.json.

    280 are for training, 100 for validation and 100 for testing, each subject in one subset.
    """
    random = np.random.default_rng(0)
    subsets = [subset for subset, n in SUBJECTS.items() for _ in range(n)]
    random.shuffle(subsets)
    database = {}
    turns = {subset: _turns(random) for subset in SUBJECTS}
    for number, subset in enumerate(subsets, 1):
        subject = _Subject(random)
        for scene in range(1, SCENES + 1):
            place = f"Subject{number:02d}/Scene{scene}"
            rooms = _texture(random, 3), _texture(random, 1)
            for video in range(1, VIDEOS + 1):
                frames, clips = 0, []
                for gesture in range(GESTURES):
                    label = next(turns[subset])
                    rest, n = int(random.integers(2, 5)), int(random.integers(24, 35))
                    clips.append(subject.gesture(random, label, rest, n, rooms))
                    name = f"{place}/Color/rgb{video}" + (f"_{len(database)}" if gesture else "")
                    first, frames = frames + rest + 1, frames + rest + n
                    about = {"label": label, "start_frame": str(first), "end_frame": str(frames)}
                    database[name] = {"subset": subset, "annotations": about}
                colour, depth = (np.concatenate(parts) for parts in zip(*clips, strict=True))
                _write(folder / place / "Color" / f"rgb{video}", colour)
                _write(folder / place / "Depth" / f"depth{video}", depth)
    content = {"labels": LABELS, "database": database}
    (folder / "annotation.json").write_text(json.dumps(content, indent=0), encoding="utf-8")


def _turns(random: np.random.Generator):
    """Endless labels, all equally often."""
    while True:
        yield from random.permutation(LABELS).tolist()


class _Subject:
    """What all videos of one person have in common: skin, sleeve, the size of the hand."""

    def __init__(self, random: np.random.Generator):
        light = random.uniform(0.75, 1.1)
        skin = light * np.array([225, 172, 140]) + random.normal(0, 6, 3)
        self.skin = skin.astype(np.float32)
        self.sleeve = random.uniform(20, 120, 3).astype(np.float32)
        self.size = random.uniform(7.5, 9.5)

    def gesture(self, random, label: str, rest: int, n: int, rooms) -> tuple[np.ndarray, ...]:
        """``rest`` frames at rest and ``n`` of the gesture, in colour and in depth.

        Bytes: (frames, H, W, 3) and (frames, H, W).
        """
        axis, shape, way = PARTS[label]
        right, down = WAYS[way]
        time = np.arange(-rest, n) / (n - 1)
        onset, end = random.uniform(0.05, 0.25), random.uniform(0.75, 0.95)
        done = np.clip((time - onset) / (end - onset), 0, 1)
        done = (3 - 2 * done) * done**2 - 0.5  # -0.5 to 0.5

        shake = _walk(random, len(time), 0.5)
        far = random.uniform(7, 16)
        x = WIDTH / 2 + random.normal(0, 4) + right * far * done + shake[:, 0]
        y = HEIGHT * 0.55 + random.normal(0, 3) + down * far * done + shake[:, 1]
        tilt = random.normal(0, 0.2) + 0.05 * _walk(random, len(time), 0.5)[:, 0]
        size = self.size * random.uniform(0.9, 1.1)
        x, y, cos, sin = (_per_frame(a) for a in (x, y, np.cos(tilt), np.sin(tilt)))
        across = np.arange(WIDTH, dtype=np.float32) - x
        along = np.arange(HEIGHT, dtype=np.float32)[:, None] - y
        # In units of the hand's size; the fingers point to negative v.
        u = (across * cos + along * sin) / size
        v = (along * cos - across * sin) / size

        arm = _cover(_stroke(u, v, (0, 0.5), (0.3, 8), 0.6), size)
        colour = self._colour(random, shape, u, v, arm, size, rooms[0])
        depth = self._depth(random, AXES[axis] * done, u, v, arm, size, rooms[1])
        return colour, depth

    def _colour(self, random, shape, u, v, arm, size, room) -> np.ndarray:
        if shape == "fist":
            hand = _cover(np.hypot(u, v / 0.9) - 0.95, size)
        else:
            distance = np.hypot(u, v) - 0.8
            for degrees, reach in ((-62, 1.45), (-24, 1.75), (-6, 1.75), (12, 1.75), (30, 1.75)):
                angle = math.radians(degrees)
                tip = (reach * math.sin(angle), -reach * math.cos(angle))
                distance = np.minimum(distance, _stroke(u, v, (0, 0), tip, 0.17))
            hand = _cover(distance, size)
        frames = len(u)
        shade = 1 - 0.18 * np.clip(v, -1, 1)[..., None]
        picture = _shifted(random, room, frames)
        picture += (self.sleeve - picture) * arm[..., None]
        picture += (self.skin * shade - picture) * hand[..., None]
        flicker = 1 + 0.05 * _walk(random, frames, 0.6)[:, 0] + random.normal(0, 0.1)
        picture *= _per_frame(flicker)[..., None]
        return _bytes(picture + 7 * random.standard_normal(picture.shape, np.float32))

    def _depth(self, random, nearer, u, v, arm, size, room) -> np.ndarray:
        """Nearer is brighter; a pixel without a reading is 0."""
        frames = len(u)
        blob = _cover(np.hypot(u, v / 1.15) - 1.1, size)
        level = random.uniform(120, 160) + random.uniform(8, 42) * nearer
        level = _per_frame(level + 5 * _walk(random, frames, 0.6)[:, 0])
        picture = 40 + 0.5 * _shifted(random, room, frames)[..., 0]
        picture += (level - 12 * np.clip(v, 0, 3) - picture) * arm
        picture += (level - picture) * blob
        picture += 9 * random.standard_normal(picture.shape, np.float32)
        picture[random.random(picture.shape, np.float32) < 0.03] = 0
        return _bytes(picture)


def _per_frame(values: np.ndarray) -> np.ndarray:
    """(frames,) → (frames, 1, 1)."""
    return values.astype(np.float32)[:, None, None]


def _stroke(u, v, start, end, radius):
    """Distance to a thick line; negative inside."""
    du, dv = end[0] - start[0], end[1] - start[1]
    along = np.clip(((u - start[0]) * du + (v - start[1]) * dv) / (du**2 + dv**2), 0, 1)
    u, v = u - start[0] - along * du, v - start[1] - along * dv
    return np.sqrt(u * u + v * v) - radius


def _cover(distance, size):
    """How much of each pixel is covered, from distances in units of the hand's size."""
    return np.clip(0.5 - distance * size, 0, 1)


def _walk(random, n: int, step: float) -> np.ndarray:
    """A random walk that is drawn back to 0: (n, 2)."""
    steps = random.normal(0, step, (n, 2))
    for i in range(1, n):
        steps[i] += 0.9 * steps[i - 1]
    return steps


def _texture(random, colours: int) -> np.ndarray:
    """Smooth blotches in 0 … 255, a little larger than a frame: (H + 8, W + 8, colours)."""
    pil = package("PIL.Image")
    size = (WIDTH + 8, HEIGHT + 8)

    def blotches(cells: int) -> np.ndarray:
        coarse = pil.fromarray(random.normal(size=(cells, cells)).astype(np.float32))
        return np.asarray(coarse.resize(size, pil.Resampling.BICUBIC))[..., None]

    light = random.uniform(40, 90) + 12 * blotches(5) + 8 * blotches(16)
    tints = [6 * blotches(4) + random.normal(0, 8) for _ in range(colours)]
    return np.clip(light + np.concatenate(tints, -1), 0, 255).astype(np.float32)


def _shifted(random, room: np.ndarray, frames: int) -> np.ndarray:
    """The room as seen from a head that moves a little: (frames, H, W, channels)."""
    offsets = np.clip(np.round(4 + _walk(random, frames, 0.4)), 0, 8).astype(int)
    return np.stack([room[y : y + HEIGHT, x : x + WIDTH] for x, y in offsets])


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)


def _write(folder: Path, frames: np.ndarray) -> None:
    pil = package("PIL.Image")
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, 1):
        pil.fromarray(frame).save(folder / f"{number:06d}.jpg", quality=75)
