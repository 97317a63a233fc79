"""``digits``: the embedded task, scikit-learn's handwriting with synthetic speech.

The speech is not a recording of people: ``assets/digits/build_speech.py`` made it with espeak-ng.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import torch

from ..config import SearchSettings, Settings
from ..runtime import as_seed, generator
from .audio import FRAMES, MELS
from .files import DATA_SETS
from .pairs import DigitData, PairRecipe, pair_task
from .rules import RULES, DigitPair, is_high
from .task import SPLITS, Task, register_task

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DECIBELS = 80.0
_ONE_CELL = Settings(
    C=32, L=4, N=1, M=2, epochs=15, batch_size=64, dropout=0.1, max_lr=3e-3, min_lr=1e-6,
    weight_decay=1e-4, restart=1,
)  # fmt: skip
# A hypernet trained for longer memorises its samples, and α turns from late features.
# Rungs were chosen by regret in the tabular benchmark with seeds 100 to 129.
_RUNGS = (36, 3), (10, 7), (3, 15)
_SEARCH = SearchSettings(epochs=3, selection="successive_halving", rungs=_RUNGS)
_SIZES = {"train": 3000, "validation": 1500, "test": 1500}
_SAME_AND_SUM = {"sizes": _SIZES, "config": _ONE_CELL, "search_config": _SEARCH}
RECIPES = {
    "same": PairRecipe(name="same", image_energy=0.25, snr_db=-10.0, **_SAME_AND_SUM),
    "sum": PairRecipe(name="sum", image_energy=0.75, snr_db=20.0, **_SAME_AND_SUM),
}
#: Under *voice* and rules of your own. C, tuning and rungs were chosen on validation with seeds 0
#: to 7. The last rung trains to the end, where operations that learn slowly catch up.
VOICE = PairRecipe(
    name="voice",
    image_energy=1.0,
    snr_db=20.0,
    sizes={"train": 2000, "validation": 1000, "test": 1500},
    config=replace(_ONE_CELL, C=48, N=2),
    search_config=replace(_SEARCH, tuning_epochs=7, rungs=((16, 3), (4, 7), (2, 15))),
    embedding=32,
    epochs=40,
)


@register_task("digits")
def digits(
    rule: str = "voice",
    image_energy: float | None = None,
    snr_db: float | None = None,
    backbone_seed: int = 0,
    train_pairs: int | None = None,
    data_seed: int = 0,
) -> Task:
    """A written and a spoken digit, small enough to come with the kit and run in minutes.

    1,797 images and 1,200 clips. The splits share no image and no voice. Under *voice* and rules of
    your own there are 2,000 training, 1,000 validation and 1,500 test pairs; backbones have four
    features, the last an embedding; and each split has as many high voices as low ones. Under
    *same* and *sum* there are 3,000, 1,500 and 1,500 pairs, and three features.

    Args:
        rule: ``"voice"``, the sum of the two if the voice is high, their difference if it is low
            (28 classes); ``"same"`` digit (10 classes); ``"sum"`` (19 classes); or one of your own,
            see :func:`~bmnas_core.tasks.rules.register_rule`.
        image_energy: share of the images' variance that is kept; by default 0.25 for same, 0.75 for
            sum, else all.
        snr_db: speech to white noise in decibels; by default -10 for same, else 20.
        backbone_seed: of the backbones' training. The kit has the weights of seed 0; with another,
            they are trained at the first call.
        train_pairs: number of training pairs, if not the usual one; the backbones stay the same.
        data_seed: which images and voices are in which split, how they are paired, and the noise.
            With another than 0 it is a variant of the task that is as hard; its backbones are
            trained at the first call.

    Raises TaskError for an unknown rule, one that gives no labels, or a knob out of range.
    """
    recipe = RECIPES.get(rule, VOICE) if isinstance(rule, str) else VOICE
    return pair_task(
        "digits", rule, _read(recipe is VOICE, as_seed(data_seed)), recipe,
        image_energy=image_energy, snr_db=snr_db, backbone_seed=backbone_seed,
        train_pairs=train_pairs, data_seed=data_seed,
    )  # fmt: skip


def label_of(task: Task, image: int, clip: int) -> int | None:
    """The class of a written and a spoken digit, items of a task ``digits``; None for no class.

    It need not be a pair of the task.
    """
    digit = int(task.modalities[0].classes[image])
    value = RULES[task.rule](replace(clips()[clip], written=digit))
    return task.class_names.index(str(value)) if str(value) in task.class_names else None


def clips() -> tuple[DigitPair, ...]:
    """What is known of each of the 1,200 clips, the Audio items; ``written`` is 0."""
    return _read().spoken


@cache
def _read(by_kind: bool = False, seed: int = 0) -> DigitData:
    """Images and clips; with ``by_kind`` high and low voices are split apart from each other."""
    from sklearn.datasets import load_digits

    written = load_digits()
    small = torch.from_numpy(written.images).float().unsqueeze(1) / 16
    images = torch.nn.functional.interpolate(small, (16, 16), mode="bilinear")
    order = torch.randperm(len(images), generator=generator(seed, "digits images"))
    parts = order.tensor_split((int(0.6 * len(images)), int(0.8 * len(images))))
    path = DATA_SETS["digits"].require() / "speech.npz"
    with np.load(path, allow_pickle=False) as file:
        speech = {name: values.tolist() for name, values in file.items() if name != "decibels"}
        decibels = torch.from_numpy(file["decibels"]).float() / 255 * DECIBELS - DECIBELS
    kinds = {"digits voices": range(len(speech["voices"]))}
    if by_kind:
        high = [is_high(voice) for voice in speech["voices"]]
        kinds = {
            f"digits voices, high: {kind}": [k for k, own in enumerate(high) if own is kind]
            for kind in (False, True)
        }
    part_of = {}
    for stream, voices in kinds.items():
        part_of |= _split_voices(voices, generator(seed, stream))
    part = torch.tensor([part_of[voice] for voice in speech["voice"]])
    known = ("digit", "voice", "pitch", "speed")
    return DigitData(
        images=images,
        image_digits=torch.from_numpy(written.target).long(),
        image_split=dict(zip(SPLITS, parts, strict=True)),
        speech=10 ** (decibels.reshape(-1, MELS, FRAMES) / 10),
        spoken=tuple(
            DigitPair(0, digit, speech["voices"][voice], pitch, speed)
            for digit, voice, pitch, speed in zip(*map(speech.get, known), strict=True)
        ),
        speech_split={name: (part == i).nonzero()[:, 0] for i, name in enumerate(SPLITS)},
        version=hashlib.sha256(path.read_bytes()).hexdigest()[:16],
    )


def _split_voices(voices: Sequence[int], random: torch.Generator) -> dict[int, int]:
    """Voice → number of its split; three fifths of the voices are in the first."""
    order = torch.randperm(len(voices), generator=random).tolist()
    return {voices[k]: max(0, place * 5 // len(voices) - 2) for place, k in enumerate(order)}
