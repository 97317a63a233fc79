"""Wrong answers to the exercises of notebook 09."""

import numpy as np

import bmnas_core as bm


def task(video, audio, labels, **options):
    return bm.Task.from_features("a", {"Video": video, "Audio": audio}, labels, **options)


def in_given_order(video, audio, labels, speakers):
    """The first rows are train, whoever speaks."""
    rows = np.split(np.arange(len(labels)), [144, 192])
    return task(video, audio, labels, splits=rows)


def one_sample_each(video, audio, labels, speakers):
    """Leaves most samples out."""
    rows = np.unique(speakers, return_index=True)[1]
    return task(video[rows], audio[rows], labels[rows])


def without_gaps(video, audio, labels):
    heard = ~np.isnan(audio).any(axis=1)
    return task(video[heard], audio[heard], labels[heard])


def filled_with_zeros(video, audio, labels):
    return task(video, np.nan_to_num(audio), labels)


def only_if_all_is_lost(video, audio, labels):
    heard = ~np.isnan(audio).all(axis=1)
    return task(video, audio, labels, present={"Audio": heard})


def video_too(video, audio, labels):
    heard = ~np.isnan(audio).any(axis=1)
    even = np.arange(len(labels)) % 2 == 0
    return task(video, audio, labels, present={"Audio": heard, "Video": even | ~heard})


WRONG = {
    "09.1": [
        lambda video, audio, labels, speakers: task(video, audio, labels),
        lambda video, audio, labels, speakers: task(video, audio, labels, groups=labels),
        lambda video, audio, labels, speakers: task(video, audio, speakers, groups=speakers),
        in_given_order,
        one_sample_each,
    ],
    "09.2": [
        lambda x, train: (x - x.mean(0)) / x.std(0),
        lambda x, train: (x - x[train].mean()) / x[train].std(),
        lambda x, train: (x[train] - x[train].mean(0)) / x[train].std(0),
        lambda x, train: (x - x[train].mean(0)) / x[train].var(0),
    ],
    "09.3": [
        lambda table, least: list(table.idxmax(axis=1)),
        lambda table, least: ["unsure" if p < least else p for p in table.max(axis=1)],
        lambda table, least: list(table.to_numpy().argmax(1)),
        lambda table, least: table,
    ],
    "09.4": [
        lambda logits, labels: float((logits.argmax(1) == labels).double().mean()),
        lambda logits, labels: float(((logits.argmax(1) - labels).abs() <= 1).double().mean()),
        lambda logits, labels: float(
            (logits.topk(2, dim=1).indices == labels[:, None]).double().mean()
        ),
    ],
    "09.5": [without_gaps, filled_with_zeros, only_if_all_is_lost, video_too, task],
    "09.6": [lambda p, k: 1 - p, lambda p, k: 1 - p / k, lambda p, k: p + (1 - p) / k],
}
