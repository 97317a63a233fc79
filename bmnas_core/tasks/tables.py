"""Other people's data, as tables: ``multiple_features``, ``diabetes``, ``breast_cancer``.

Each is a few lines on :meth:`Task.from_features`, and an example of how to use it.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from ..config import Settings
from ..errors import in_line
from ..reading import text_of
from .arrays import split_rows
from .files import DATA_SETS
from .inputs import DataError
from .task import Task, register_task

#: View of ``multiple_features`` → the end of its file's name, and how many columns it has.
VIEWS = {
    "Fourier": ("fou", 76), "Profiles": ("fac", 216), "KarhunenLoeve": ("kar", 64),
    "Pixels": ("pix", 240), "Zernike": ("zer", 47), "Morphology": ("mor", 6),
}  # fmt: skip
DIGITS = np.repeat(np.arange(10), 200)
#: Of 0.0001, the usual one, 0.001 and 0.01, this is best for BM-NAS on diabetes, on five splits of
#: train and validation. On breast_cancer it makes no difference to networks, and is the penalty
#: with which a logistic regression does well.
SMALL = Settings(weight_decay=1e-2)


@register_task("multiple_features")
def multiple_features(seed: int = 0) -> Task:
    """2,000 handwritten digits on maps of a Dutch public utility, in six views; accuracy.

    200 of each digit, as 76 Fourier coefficients of the outline, 216 correlations of profiles, 64
    Karhunen-Loève coefficients, 240 averages of 2 × 3 pixels, 47 Zernike moments and 6
    morphological features (Duin, UCI 1998, doi 10.24432/C5HC70; van Breukelen, Duin, Tax and den
    Hartog 1998).

    Args:
        seed: of the split, 60, 20 and 20 %, stratified.

    Raises DataError for files that are missing, damaged or of another size.
    """
    features = {view: _read_view(view) for view in VIEWS}
    return _from_table("multiple_features", features, DIGITS, seed)


@register_task("diabetes")
def diabetes(seed: int = 0) -> Task:
    """How diabetes went on in 442 patients within a year, from two tables; a regression, RMSE.

    Body: age, sex, body mass index, blood pressure. Blood: six measurements of the serum. The score
    is from 25 to 346, and the root of the mean squared error has its units (Efron, Hastie,
    Johnstone and Tibshirani 2004; the files are scikit-learn's). 90 test samples say little: see
    :func:`~bmnas_core.cross_validate`.

    Args:
        seed: of the split, 60, 20 and 20 %, stratified by deciles.
    """
    from sklearn.datasets import load_diabetes

    data = load_diabetes(scaled=False)
    features = {"Body": data.data[:, :4], "Blood": data.data[:, 4:]}
    return _from_table("diabetes", features, data.target, seed, metric="rmse", config=SMALL)


@register_task("breast_cancer")
def breast_cancer(seed: int = 0) -> Task:
    """Whether a breast tumour is malignant or benign, 569 cases in three views; AUROC.

    Ten measurements of cell nuclei, such as radius and texture: their mean over an image, its
    standard error, and the mean of the three largest (Wolberg, Mangasarian, Street and Street, UCI
    1993, doi 10.24432/C5DW2B; the file is scikit-learn's).

    Args:
        seed: of the split, 60, 20 and 20 %, stratified.
    """
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    features = dict(zip(("Mean", "Error", "Worst"), np.split(data.data, 3, axis=1), strict=True))
    how = {"metric": "auroc", "class_names": data.target_names.tolist(), "config": SMALL}
    return _from_table("breast_cancer", features, data.target, seed, **how)


def _from_table(
    name: str, features: Mapping[str, np.ndarray], labels: np.ndarray, seed: int, **how
) -> Task:
    """A task with a random split, and columns standardised by their statistics over train.

    A reshape layer mixes the columns of a view before its BatchNorm, so that without this a column
    in the thousands would drown the others.
    """
    splits = split_rows((0.6, 0.2, 0.2), torch.from_numpy(labels), seed=seed)
    train = splits["train"].numpy()
    features = {view: _standardised(table, train) for view, table in features.items()}
    return Task.from_features(name, features, labels, splits, **how)


def _standardised(table: np.ndarray, train: np.ndarray) -> np.ndarray:
    mean, deviation = table[train].mean(0), table[train].std(0)
    return ((table - mean) / np.where(deviation > 0, deviation, 1)).astype(np.float32)


def _read_view(view: str) -> np.ndarray:
    """The table of a view, (2000, columns): UCI's own file, or a CSV file with digits behind."""
    (end, columns), folder = VIEWS[view], DATA_SETS["multiple_features"].root
    plain, csv = folder / f"mfeat-{end}", folder / f"mfeat-{end}.csv"
    if csv.is_file():
        table = _read_numbers(csv, (len(DIGITS), columns + 1), delimiter=",", skiprows=1)
        wrong = np.flatnonzero(table[:, -1] != DIGITS)
        if len(wrong):
            found = f"{table[wrong[0], -1]:g} as digit of row {wrong[0]}"
            raise DataError(csv, found, f"{DIGITS[wrong[0]]}; 200 of each digit, in order")
        return table[:, :-1]
    if plain.is_file():
        return _read_numbers(plain, (len(DIGITS), columns))
    raise DataError(
        f"data of task 'multiple_features': {csv}: missing. Set BMNAS_DATA to the folder that "
        "holds 'multiple_features', or run: bmnas data fetch multiple_features"
    )


def _read_numbers(file: Path, shape: tuple[int, int], **how) -> np.ndarray:
    """A table of finite numbers in a text file. Raises DataError unless it has this shape."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of an empty file; its shape is wrong too
            table = np.loadtxt(text_of(file).splitlines(), ndmin=2, **how)
    except (ValueError, OSError) as error:
        raise DataError(f"{file}: found no table of numbers ({in_line(error)})") from None
    if table.shape != shape:
        found = f"{table.shape[0]:,} rows of {table.shape[1]}"
        raise DataError(file, found, f"{shape[0]:,} rows of {shape[1]}")
    rows, _ = np.nonzero(~np.isfinite(table))
    if len(rows):
        raise DataError(f"{file}, row {rows[0]}", "NaN or infinity", "finite numbers")
    return table
