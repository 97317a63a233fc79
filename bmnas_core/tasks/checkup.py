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


@dataclass
class Checkup:
    """What was found in the files of a data set.

    Attributes:
        how: what was done with them, such as ``"decoded"``.
        counts: files or items of each kind that were looked at, such as ``{"Video": 56_578}``.
        problems: one line each.
        notices: what was decided where files can be read in several ways.
    """

    how: str
    counts: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def kinds(self) -> Counter[str]:
        """How many problems there are of each kind, the most frequent first."""
        return Counter(dict(Counter(map(_kind, self.problems)).most_common()))

    def __str__(self) -> str:
        """What was looked at, in one line, for a data set without problems."""
        counts = " and ".join(f"{n:,} {name}" for name, n in self.counts.items())
        return f"{counts}: {self.how}"


def check_task(
    name: str, options: Mapping[str, object], deep: bool, workers: int | None = None
) -> Checkup:
    """Load a task, and look at the files of its inputs: their ends, or with ``deep`` all of them.

    Names, pairs and annotations are checked as the task is loaded. ``deep`` decodes each item in
    worker processes, as extracting features would.
    """
    ends = "by names, sizes, first and last bytes; not decoded, as --deep would"
    found = Checkup("decoded, all are right" if deep else f"look right {ends}")
    task = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        try:
            task = load_task(name, **options)
        except BmnasError as error:
            found.problems.append(str(error))
        modalities = task.modalities if task else ()
        if not any(isinstance(modality.inputs, FileInputs) for modality in modalities):
            found.how = "read as a whole, all are right"
        for modality in modalities:
            inputs = modality.inputs
            found.counts[modality.name] = len(inputs)
            if isinstance(inputs, FileInputs):
                check = _decode_all if deep else _look_at_all
                found.problems += check(inputs, modality.name, workers)
    for warning in caught:
        if issubclass(warning.category, DataWarning):
            notice = issubclass(warning.category, DataNotice)
            (found.notices if notice else found.problems).append(str(warning.message))
    return found


def _look_at_all(inputs: FileInputs, name: str, workers: int | None) -> Iterator[str]:
    def problem(item: int) -> str | None:
        try:
            inputs.look(item)
        except DataError as error:
            return str(error)

    if inputs.look:
        with ThreadPoolExecutor(8) as pool:
            found = pool.map(problem, range(len(inputs)))
            yield from filter(None, progress_bar(found, name, len(inputs)))


def _decode_all(inputs: FileInputs, name: str, workers: int | None) -> Iterator[str]:
    rows = torch.arange(len(inputs)).split(BATCH)
    batches = [(items, items[:, None]) for items in rows]
    try:
        parts = load([_Decoded(inputs)], batches, workers=workers)
        for part in progress_bar(parts, name, len(batches)):
            yield from part.failures.values()
    except BmnasError as error:  # of a worker that the system ended
        yield str(error)


class _Decoded(OnDemandInputs):
    """Inputs that are read, but of which only a number is handed on."""

    def __init__(self, inputs: FileInputs):
        self.inputs = inputs

    def __len__(self) -> int:
        return len(self.inputs)

    def read(self, item: int, random: torch.Generator | None = None) -> torch.Tensor:
        self.inputs.read(item, None)
        return torch.zeros(())


def _kind(problem: str) -> str:
    """What is wrong, without the file's name and numbers."""
    words = problem.split(": ", 1)[-1].split(";")[0].split(" (")[0]
    return re.sub(r"\d[\d,.]*", "N", words)
