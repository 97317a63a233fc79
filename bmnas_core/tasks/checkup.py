"""Whether the files of a data set are right: what was looked at, how, and what was found."""

import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch

from ..errors import BmnasError, DataError, DataNotice, DataWarning
from ..progress import progress_bar
from .inputs import FileInputs, OnDemandInputs, load
from .task import load_task

#: Items that a worker process decodes at a time.
BATCH = 8
#: What was done with files.
BY_CHECKSUM = "all are right by their checksums"
DECODED = "decoded, without an error"
LOOKED_AT = "look right by names, sizes, first and last bytes; not decoded, as --deep would"
NOT_READ = "in one file, which opens; not read, as --deep would"
READ = "read, all are right"
#: Of a task's notes, what its files have besides and nobody looked at.
BESIDES = {
    "other_actions": "samples of other actions",
    "missing_skeletons": "samples whose skeletons are missing, by the authors' list",
}


@dataclass
class Checkup:
    """What was found in the files of a data set.

    Attributes:
        counts: what was done with files or items, such as ``"decoded, without an error"`` → how
            many of each kind, such as ``{"Video": 56_578}``.
        problems: one line each.
        notices: what was decided where files can be read in several ways, and what nobody looked
            at.
    """

    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def kinds(self) -> Counter[str]:
        """How many problems there are of each kind, the most frequent first."""
        return Counter(dict(Counter(map(_kind, self.problems)).most_common()))

    def __str__(self) -> str:
        """What was looked at, in one line, for a data set without problems."""
        return "; ".join(
            f"{' and '.join(f'{n:,} {name}' for name, n in items.items())}: {how}"
            for how, items in self.counts.items()
        )


def check_task(
    name: str, options: Mapping[str, object], deep: bool, workers: int | None = None
) -> Checkup:
    """Load a task, and look at the files of its inputs: their ends, or with ``deep`` all of them.

    Names, pairs and annotations are checked as the task is loaded. ``deep`` also decodes each item,
    in worker processes.
    """
    found = Checkup()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        try:
            task = load_task(name, **options)
        except BmnasError as error:
            found.problems.append(str(error))
        else:
            for modality in task.modalities:
                how = _check(modality.inputs, modality.name, deep, workers, found.problems)
                found.counts.setdefault(how, {})[modality.name] = len(modality.inputs)
            found.notices += [
                f"{what}: {task.notes[key]:,}, not looked at"
                for key, what in BESIDES.items()
                if task.notes.get(key)
            ]
    for warning in [one.message for one in caught if issubclass(one.category, DataWarning)]:
        if not isinstance(warning, DataNotice):
            found.problems += warning.reasons or (str(warning),)
        elif str(warning) not in found.notices:
            found.notices.append(str(warning))
    return found


def _check(inputs, name: str, deep: bool, workers: int | None, problems: list[str]) -> str:
    """Check the files of a modality, and add what is wrong; returns what was done with them."""
    if not isinstance(inputs, FileInputs):
        return READ
    wrong = dict(_look_at_all(inputs, name)) if inputs.look else {}
    if deep:
        wrong |= {
            item: why for item, why in _decode_all(inputs, name, workers) if item not in wrong
        }
    problems += wrong.values()
    return DECODED if deep else LOOKED_AT if inputs.look else NOT_READ


def _look_at_all(inputs: FileInputs, name: str) -> Iterator[tuple[int, str]]:
    """Items whose files cannot be right, and why."""

    def problem(item: int) -> str | None:
        try:
            inputs.look(item)
        except DataError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        items = range(len(inputs))
        whys = progress_bar(pool.map(problem, items), f"{name}, both ends", len(inputs))
        yield from ((item, why) for item, why in zip(items, whys, strict=True) if why)


def _decode_all(
    inputs: FileInputs, name: str, workers: int | None
) -> Iterator[tuple[int | None, str]]:
    """Items that cannot be decoded, and why; an error of the workers is of no item."""
    rows = torch.arange(len(inputs)).split(BATCH)
    batches = [(items, items[:, None]) for items in rows]
    try:
        parts = load([_Decoded(inputs)], batches, workers=workers)
        for part in progress_bar(parts, name, len(batches)):
            yield from ((item, why) for (_, item), why in part.failures.items())
    except BmnasError as error:  # of a worker that the system ended
        yield None, str(error)


class _Decoded(OnDemandInputs):
    """Inputs that are read, but of which only a number is handed on."""

    def __init__(self, inputs: FileInputs):
        self.inputs = inputs

    def __len__(self) -> int:
        return len(self.inputs)

    def read(self, item: int, random: torch.Generator | None = None) -> torch.Tensor:
        self.inputs.decode(item) if self.inputs.decode else self.inputs.read(item, None)
        return torch.zeros(())


def _kind(problem: str) -> str:
    """What is wrong, without names, quotations and numbers."""
    words = problem.split(": ", 1)[-1].split(";")[0].split(" (")[0]
    words = re.sub(r"b?'[^']*'|b?\"[^\"]*\"", "…", words)
    words = re.sub(r"\S*/\S+|\S+\.[a-z]\w{2,}\b", "FILE", words)
    return re.sub(r"\d[\d,.]*", "N", words)
