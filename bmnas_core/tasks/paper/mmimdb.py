"""``mmimdb``: MM-IMDB, 23 genres of films by poster and plot, from the data set's own files."""

import os
import warnings
from dataclasses import replace

from ...backbones.paper.mmimdb import VGG19, MaxoutMLP
from ...config import SearchSettings, Settings
from ...errors import DataNotice, quoted
from ...runtime import seeded
from ..task import Task, TaskError, register_task
from .common import folder_of, modalities_of, paired_splits
from .mmimdb_films import CLASSES, SPLITS, read_films
from .mmimdb_posters import SCALES, PosterReader, scale_of
from .samples import posters

PAPER = Settings(
    C=192, L=16, N=2, M=1, epochs=12, batch_size=96, dropout=0.1, max_lr=1e-3, min_lr=1e-6,
    weight_decay=1e-4, restart=1,
)  # fmt: skip
SAMPLE = replace(PAPER, C=32, epochs=15, batch_size=32, max_lr=3e-3)
#: How the sample's backbones are trained alone.
SAMPLE_BACKBONES = {
    "Image": Settings(epochs=12, batch_size=16, max_lr=1e-3, restart=12),
    "Text": Settings(epochs=40, batch_size=32, max_lr=5e-3, restart=40),
}
#: For the sample: side of the square of pixels that become one, and width of VGG-19.
SAMPLE_SHRINK, SAMPLE_WIDTH = 4, 8
#: Scales of posters that need not be named to the user.
USUAL = ("0 to 255", "BGR less mean")


@register_task("mmimdb")
def mmimdb(
    data_root: str | os.PathLike | None = None,
    sample: bool = False,
    weights: dict[str, str | os.PathLike] | None = None,
    head: bool = True,
    raw: bool = False,
    scale: str | None = None,
    texts: str | os.PathLike | None = None,
) -> Task:
    """Genres of films by poster and plot (Arevalo et al. 2017): 23 classes, any number per film.

    The whole data set has 15,552 training, 2,608 validation and 7,799 test films. Inputs are
    ``Image: (3, 256, 160)``, see :class:`~bmnas_core.tasks.paper.mmimdb_posters.PosterReader`, and
    ``Text: (300,)``, the mean word2vec vector of a plot. The data set's *dev* is our validation.
    Films are left out with a warning if their plot has no finite vector, if they are not in the
    HDF5 file, or if one of their files is missing. Of the raw archive, whose plots have no vectors,
    ``Text: (3000,)`` is how often each of the most frequent words comes (tf-idf).

    Args:
        data_root: folder with ``multimodal_imdb.hdf5`` and, if there is one, ``split.json``; with
            the folders ``train``, ``dev`` and ``test`` of single films; or of the raw archive, with
            ``split.json`` and ``dataset/<id>.json`` and ``<id>.jpeg``. By default ``mmimdb`` in the
            folder of data sets.
        sample: read posters at 64×40, for a small VGG-19 that trains on a laptop. Without
            ``data_root`` they are those of 1,100 films that the kit draws in this format.
        weights: modality → file of weights for its backbone; a backbone without has random ones.
        head: whether to read the classifiers of these weights, too; they may be of other classes.
        raw: keep the posters' numbers as they are in the file instead of normalising them. The
            published weights of the Image backbone expect these.
        scale: what the posters' numbers are: ``"0 to 255"``, ``"0 to 1"``, ``"-1 to 1"``,
            ``"ImageNet"`` (normalised by its mean and deviation), ``"0 to 1 less mean"``,
            ``"RGB less mean"``, or as the authors wrote them, ``"BGR less mean"``. By default about
            sixteen posters show it; one that is not usual is named in a DataNotice.
        texts: vectors of the plots of the raw archive, an ``.npz`` of ``ids`` (films,) and
            ``vectors`` (films, size).

    Raises DataError for files that are missing or damaged, CheckpointError or TaskError for weights
    that do not fit or have no modality.
    """
    root = folder_of("mmimdb", data_root, sample, posters.make)
    if scale is not None and scale not in SCALES:
        raise TaskError("scale", quoted(scale), ", ".join(map(repr, SCALES)))
    films = read_films(root, texts)
    known = SCALES[scale] if scale else scale_of(films.posters)
    if not scale and known.name not in USUAL:
        text = f"{root}: found posters on the scale {known.name!r}; scale=NAME reads another"
        warnings.warn(text, DataNotice, stacklevel=2)
    reader = PosterReader(films.posters, known, SAMPLE_SHRINK if sample else 1, raw)
    inputs = {"Image": reader.inputs(), "Text": films.plots}
    sizes = zip(SPLITS.values(), films.sizes, strict=True)
    splits = paired_splits([name for name, n in sizes for _ in range(n)], films.genres)
    with seeded(0, "mmimdb backbones"):
        image = VGG19(CLASSES, width=SAMPLE_WIDTH if sample else 64)
        backbones = {"Image": image, "Text": MaxoutMLP(CLASSES, films.plots.shape[1])}
    modalities = modalities_of(backbones, inputs, weights, head, pooling="grid")
    notes = {"root": str(root), "sample": sample, "genres": films.names}
    notes |= {"left out": films.left_out, "raw": raw, "scale": known.name}
    return Task(
        "mmimdb", None, CLASSES, "weighted_f1", modalities, splits, SAMPLE if sample else PAPER,
        SearchSettings(epochs=3 if sample else None, selection="successive_halving"),
        notes, SAMPLE_BACKBONES if sample else {}, threshold=0.3,
    )  # fmt: skip
