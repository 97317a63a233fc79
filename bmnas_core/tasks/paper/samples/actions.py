"""A small data set in NTU RGB+D's format: people of sticks and discs, filmed and tracked.

All of it is synthetic. An action is a motion with an object in the hand. The skeleton shows the
motion well, and nothing of the object. The video is small, blurred and shaken: it shows the
object's colour and shape, but of the motion only roughly where the hand is. So each modality alone
shows one of the two parts of an action.
"""

from pathlib import Path

import numpy as np

from ...files import package

#: Actions of the data set that are acted here: its code and name, the motion, the object.
ACTED = (
    ("A001", "drink water", "to mouth", "ball"),
    ("A003", "brushing teeth", "to mouth", "bar"),
    ("A004", "brushing hair", "to head", "box"),
    ("A028", "phone call", "to head", "ball"),
    ("A011", "reading", "before chest", "box"),
    ("A029", "playing with phone", "before chest", "bar"),
    ("A016", "wear a shoe", "to foot", "box"),
    ("A017", "take off a shoe", "to foot", "bar"),
    ("A022", "cheer up", "raise", "box"),
    ("A023", "hand waving", "raise", "ball"),
    ("A031", "pointing", "forward", "bar"),
    ("A032", "taking a selfie", "forward", "ball"),
)
ACTIONS = {code: name for code, name, _, _ in ACTED}
SCRIPT = {code: (motion, thing) for code, _, motion, thing in ACTED}
#: Where a motion takes the right hand, in metres to the left, up and back from the hips; how far
#: the trunk bends, in radians; and whether both hands move.
MOTIONS = {
    "to mouth": ((-0.06, 0.62, -0.20), 0.0, False),
    "to head": ((-0.17, 0.70, -0.05), 0.0, False),
    "before chest": ((-0.09, 0.28, -0.33), 0.1, True),
    "to foot": ((-0.12, 0.12, -0.42), 1.2, False),
    "raise": ((-0.32, 0.88, -0.08), 0.0, False),
    "forward": ((-0.12, 0.46, -0.50), 0.0, False),
}
OBJECTS = {"box": (205, 45, 45), "bar": (40, 170, 60), "ball": (50, 80, 215)}

#: Camera → the angle from which it films, in radians.
CAMERAS = {1: 0.5, 2: 0.0, 3: -0.5}

WIDTH, HEIGHT, SCALE = 160, 90, 12  # a pixel here is SCALE of the camera's
MARGIN = 16

#: Joints at rest, person facing the camera: metres to the left, up and back from the hips.
REST = np.array([
    (0, 0, 0), (0, 0.28, 0), (0, 0.55, 0), (0, 0.70, -0.02),  # trunk, head
    (0.17, 0.46, 0), (0.22, 0.2, 0), (0.24, -0.04, -0.03), (0.24, -0.1, -0.04),  # left arm
    (-0.17, 0.46, 0), (-0.22, 0.2, 0), (-0.24, -0.04, -0.03), (-0.24, -0.1, -0.04),  # right arm
    (0.08, -0.04, 0), (0.1, -0.46, -0.02), (0.11, -0.86, 0), (0.12, -0.9, -0.12),  # left leg
    (-0.08, -0.04, 0), (-0.1, -0.46, -0.02), (-0.11, -0.86, 0), (-0.12, -0.9, -0.12),  # right leg
    (0, 0.48, 0), (0.24, -0.17, -0.05), (0.21, -0.1, -0.08),  # neck, left fingers
    (-0.24, -0.17, -0.05), (-0.21, -0.1, -0.08),  # right fingers
])  # fmt: skip
UPPER_BODY = [*range(1, 12), *range(20, 25)]
#: Shoulder, elbow, wrist, hand, tip and thumb.
LEFT, RIGHT = (4, 5, 6, 7, 21, 22), (8, 9, 10, 11, 23, 24)
#: Joint → its counterpart on the body's other side.
MIRRORED = np.arange(len(REST))
MIRRORED[[*LEFT, *range(12, 16), *RIGHT, *range(16, 20)]] = [
    *RIGHT, *range(16, 20), *LEFT, *range(12, 16)
]  # fmt: skip
#: Joints that the sensor gives no orientation: the ends of its chains.
ENDS = (3, 15, 19, 21, 22, 23, 24)
#: Limbs as they are drawn, the far ones first: joints, width in metres, and whose colour.
LIMBS = (
    ((12, 13, 14, 15), 0.13, "legs"),
    ((16, 17, 18, 19), 0.13, "legs"),
    ((0, 1, 20), 0.30, "shirt"),
    ((4, 5, 6, 7), 0.09, "shirt"),
    ((8, 9, 10, 11), 0.09, "shirt"),
)


def make(folder: Path, shares: dict[tuple[int, ...], int]) -> None:
    """Write samples of 12 actions: ``nturgb+d_rgb/*.avi`` and ``nturgb+d_skeletons/*.skeleton``.

    ``shares``: subjects → how many samples of each action they act together.
    """
    for name in ("nturgb+d_rgb", "nturgb+d_skeletons"):
        (folder / name).mkdir()
    for subjects, share in shares.items():
        for a, action in enumerate(ACTIONS):
            for i in range(share):
                subject = subjects[(i + 7 * a) % len(subjects)]
                _sample(folder, subject, action, 1 + i // len(subjects))


def _sample(folder: Path, subject: int, action: str, repetition: int) -> None:
    number = int(action[1:])
    camera = 1 + (subject + number + repetition) % 3
    name = f"S{1 + subject % 17:03d}C{camera:03d}P{subject:03d}R{repetition:03d}{action}"
    random = np.random.default_rng((subject, number, repetition))
    motion, thing = SCRIPT[action]
    frames = int(random.integers(32, 41))
    person = _Person(np.random.default_rng(subject))
    place = (random.normal(0, 0.25), random.normal(-0.15, 0.05), random.uniform(2.5, 3.1))
    turn = CAMERAS[camera] + random.normal(0, 0.15)
    cast = [(person, _placed(person.acts(random, motion, frames), turn, place))]
    if random.random() < 0.12:
        other = _Person(random)
        place = (random.choice((-1.0, 1.0)) * random.uniform(0.9, 1.2), -0.15, 3.6)
        body = REST * other.size + _drift(random, frames, 0.012)[:, None]  # sways a little
        cast.append((other, _placed(body, random.normal(0, 0.5), place)))
    hand = (LEFT if person.left_handed else RIGHT)[3]
    _film(folder / f"nturgb+d_rgb/{name}_rgb.avi", random, cast, hand, thing)
    _track(folder / f"nturgb+d_skeletons/{name}.skeleton", random, [body for _, body in cast])


class _Person:
    """What all samples of one person have in common: size, clothes, the hand that acts."""

    def __init__(self, random: np.random.Generator):
        self.size = random.uniform(0.88, 1.08)
        self.left_handed = random.random() < 0.15
        self.skin = random.uniform(0.6, 1) * np.array([215, 180, 155])
        self.shirt = _grey(random, 70, 130, 15)
        self.legs = _grey(random, 30, 80, 10)

    def acts(self, random: np.random.Generator, motion: str, frames: int) -> np.ndarray:
        """Joints as the hand moves to its target, stays, and comes back: (frames, 25, 3)."""
        target, bend, both = MOTIONS[motion]
        time = np.linspace(0, 1, frames)
        there, back = random.uniform(0.15, 0.35), random.uniform(0.7, 0.95)
        done = _ease((time - there + 0.15) / 0.22) * _ease((back + 0.15 - time) / 0.22)
        joints = np.repeat(REST[None], frames, 0)
        off = random.normal(0, 0.04, 3)
        beat = random.uniform(1, 3) * 2 * np.pi * time + random.uniform(0, 2 * np.pi)
        stir = random.uniform(0.02, 0.06) * np.sin(beat)[:, None] * random.normal(0, 0.6, 3)
        for side, arm in ((1, RIGHT), (-1, LEFT)):
            if side == 1 or both:
                _reach(joints, arm, np.array(target) + off + stir, done, side)
        bend = bend * random.uniform(0.8, 1.1) * done[:, None]
        up, back = joints[:, UPPER_BODY, 1].copy(), joints[:, UPPER_BODY, 2].copy()
        joints[:, UPPER_BODY, 1] = up * np.cos(bend) + back * np.sin(bend)
        joints[:, UPPER_BODY, 2] = back * np.cos(bend) - up * np.sin(bend)
        if self.left_handed:
            joints = joints[:, MIRRORED] * (-1, 1, 1)
        return joints * self.size + _drift(random, frames, 0.012)[:, None]


def _grey(random: np.random.Generator, low: float, high: float, tint: float) -> np.ndarray:
    return random.uniform(low, high) + random.uniform(-tint, tint, 3)


def _reach(joints: np.ndarray, arm: tuple[int, ...], target, done, side: int) -> None:
    """Move an arm so that its wrist goes the share ``done`` of the way to the target."""
    shoulder, elbow, wrist, *fingers = arm
    upper, fore = 0.28, 0.26
    start = joints[:, wrist]
    goal = start + done[:, None] * (target * (side, 1, 1) - start)
    goal[:, 2] -= 0.15 * np.sin(np.pi * done)  # it passes in front of the body
    line = goal - joints[:, shoulder]
    length = np.clip(np.linalg.norm(line, axis=1, keepdims=True), 0.06, upper + fore - 0.01)
    line /= np.linalg.norm(line, axis=1, keepdims=True)
    along = (upper**2 - fore**2 + length**2) / (2 * length)
    out = np.array([-0.5 * side, -1, 0.3]) - line * (line @ [-0.5 * side, -1, 0.3])[:, None]
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    lift = np.sqrt(np.maximum(upper**2 - along**2, 0))
    joints[:, elbow] = joints[:, shoulder] + along * line + lift * out
    joints[:, wrist] = joints[:, shoulder] + length * line
    forward = joints[:, wrist] - joints[:, elbow]
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    for joint, far, aside in zip(fingers, (0.07, 0.14, 0.06), (0, 0, 0.04), strict=True):
        joints[:, joint] = joints[:, wrist] + far * forward
        joints[:, joint, 0] += aside * side


def _placed(joints: np.ndarray, turn: float, place) -> np.ndarray:
    """The joints as the camera sees them: turned about the vertical, then moved to a place."""
    cos, sin = np.cos(turn), np.sin(turn)
    return joints @ np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]]) + place


def _ease(share: np.ndarray) -> np.ndarray:
    share = np.clip(share, 0, 1)
    return (3 - 2 * share) * share**2


def _drift(random: np.random.Generator, frames: int, step: float) -> np.ndarray:
    """A random walk that is drawn back to 0: (frames, 3)."""
    steps = random.normal(0, step, (frames, 3))
    for i in range(1, frames):
        steps[i] += 0.85 * steps[i - 1]
    return steps


def _in_colour(joints: np.ndarray) -> np.ndarray:
    """Metres (…, 3) → pixels of the 1920 × 1080 colour camera (…, 2)."""
    x, y, z = np.moveaxis(joints, -1, 0)
    return np.stack([960 + 1081 * (x + 0.052) / z, 540 - 1081 * y / z], -1)


def _film(path: Path, random: np.random.Generator, cast: list, hand: int, thing: str) -> None:
    """Draw the scene frame by frame and write it as an XVID video."""
    av = package("av")
    frames = len(cast[0][1])
    shake = _drift(random, frames, 0.8)
    flicker = 1 + 0.04 * _drift(random, frames, 0.6)[:, 0] + random.normal(0, 0.12)
    room = _room(random)
    colour = np.clip(np.array(OBJECTS[thing]) + random.normal(0, 14, 3), 0, 255)
    figures = [
        (person, _in_colour(body) / SCALE + shake[:, None, :2], 1081 / SCALE / body[:, 0, 2])
        for person, body in cast
    ]
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate, stream.gop_size = 60_000, 60
        stream.codec_context.codec_tag = "XVID"
        stream.codec_context.thread_count = 1
        for t in range(frames):
            people = [(person, points[t], metre[t]) for person, points, metre in figures]
            picture = _picture(room, shake[t, :2], people, hand, thing, _rgb(colour))
            lit = np.clip(picture * flicker[t], 0, 255).astype(np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(lit, format="rgb24")))
        file.mux(stream.encode())


def _room(random: np.random.Generator):
    """A wall, a floor and some furniture, a little larger than a frame."""
    image, draw = package("PIL.Image"), package("PIL.ImageDraw")
    width, height = WIDTH + 2 * MARGIN, HEIGHT + 2 * MARGIN
    room = image.new("RGB", (width, height), _rgb(_grey(random, 140, 190, 10)))
    pen = draw.Draw(room)
    pen.rectangle((0, int(height * 0.72), width, height), fill=_rgb(_grey(random, 90, 130, 10)))
    for _ in range(5):
        x, y = random.uniform(0, width), random.uniform(0, height)
        w, h = random.uniform(6, 30, 2)
        pen.rectangle((x, y, x + w, y + h), fill=_rgb(_grey(random, 80, 200, 15)))
    return room


def _rgb(colour: np.ndarray) -> tuple[int, ...]:
    return tuple(int(c) for c in np.clip(colour, 0, 255))


def _picture(room, shake: np.ndarray, people: list, hand: int, thing: str, colour) -> np.ndarray:
    """One frame: the room as a shaken camera sees it, with people drawn on it.

    People are drawn from the last, and the first of them has the thing in a hand: each a person,
    joints in pixels, and the number of pixels in a metre.
    """
    x, y = np.clip(np.round(MARGIN - shake), 0, 2 * MARGIN).astype(int).tolist()
    image = room.crop((x, y, x + WIDTH, y + HEIGHT))
    pen = package("PIL.ImageDraw").Draw(image)

    def around(point: np.ndarray, width: float, height: float) -> tuple[float, ...]:
        (x, y), w, h = point, width * metre, height * metre
        return x - w, y - h, x + w, y + h

    for person, points, metre in reversed(people):
        for joints, width, part in LIMBS:
            line = [tuple(points[joint]) for joint in joints]
            fill = _rgb(getattr(person, part))
            pen.line(line, fill=fill, width=max(1, round(width * metre)), joint="curve")
        for joint, radius in ((3, 0.11), (LEFT[3], 0.045), (RIGHT[3], 0.045)):
            pen.ellipse(around(points[joint], radius, radius), fill=_rgb(person.skin))
    if thing == "ball":
        pen.ellipse(around(points[hand], 0.13, 0.13), fill=colour)
    else:
        width, height = {"box": (0.12, 0.12), "bar": (0.06, 0.2)}[thing]
        pen.rectangle(around(points[hand], width, height), fill=colour)
    return np.asarray(image)


def _track(path: Path, random: np.random.Generator, bodies: list[np.ndarray]) -> None:
    """Write the bodies as a sensor tracks them: with gaps, and sometimes with one too many."""
    frames = len(bodies[0])
    seen = [random.random(frames) > 0.02]
    seen += [random.random(frames) > random.uniform(0.05, 0.4) for _ in bodies[1:]]
    bodies = [body + random.normal(0, 0.012, body.shape) for body in bodies]
    if random.random() < 0.1:  # furniture taken for a person, for a moment
        bodies.append(np.repeat(REST[None] * 0.7 + (random.uniform(-1, 1), -0.3, 3.5), frames, 0))
        start = random.integers(frames - 6)
        seen.append((np.arange(frames) >= start) & (np.arange(frames) < start + 5))
    if random.random() < 0.15:  # an arm lost from sight
        arm = list(LEFT[1:] if random.random() < 0.5 else RIGHT[1:])
        bodies[0][:, arm] += 0.1 * _drift(random, frames, 0.7)[:, None]
    first_id = 72057594037930000 + int(random.integers(9000))
    blocks = [_blocks(first_id + i, body, inferred=i > 1) for i, body in enumerate(bodies)]
    lines = [str(frames)]
    for t in range(frames):
        present = [block[t] for block, there in zip(blocks, seen, strict=True) if there[t]]
        lines += [str(len(present)), *present]
    path.write_text("\n".join(lines) + "\n", encoding="ascii", newline="\r\n")


def _blocks(body_id: int, joints: np.ndarray, inferred: bool) -> list[str]:
    """For each frame the lines of one body: a header, and 25 joints of 12 values."""
    frames = len(joints)
    x, y, z = np.moveaxis(joints, -1, 0)
    depth = np.stack([256 + 365 * x / z, 208 - 365 * y / z], -1)
    turn = np.tile([0.0, 0.98, 0.0, 0.2], (frames, len(REST), 1))
    turn[:, ENDS] = 0
    state = np.full((frames, len(REST), 1), 1 if inferred else 2)
    values = np.concatenate([joints, depth, _in_colour(joints), turn, state], -1)
    line = "%.3f %.3f %.3f %.1f %.1f %.0f %.0f %.2g %.2g %.2g %.2g %d"
    block = "\n".join([line] * len(REST))
    head = f"{body_id} 0 1 0 1 0 0 0.02 -0.1 2\n{len(REST)}\n"
    return [head + block % tuple(frame.ravel().tolist()) for frame in values]
