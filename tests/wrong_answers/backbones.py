"""Wrong answers to the exercises of notebook 01."""

import torch

import bmnas_core as bm


def by_the_mean(feature, rows, columns):
    N, C, H, W = feature.shape
    patches = feature.reshape(N, C, rows, H // rows, columns, W // columns)
    return patches.mean((3, 5)).flatten(2)


def axes_mixed_up(feature, rows, columns):
    N, C, H, W = feature.shape
    patches = feature.reshape(N, C, H // rows, rows, W // columns, columns)
    return patches.amax((2, 4)).flatten(2)


def column_by_column(feature, rows, columns):
    N, C, H, W = feature.shape
    patches = feature.reshape(N, C, rows, H // rows, columns, W // columns).amax((3, 5))
    return patches.mT.flatten(2)


def task(classes: int = 4, **changed) -> bm.Task:
    n = 80
    features = {
        "Text": torch.randn(n, 300),
        "Video": torch.randn(n, 64, 8),
        "Sound": [torch.randn(n, 16, 32), torch.randn(n, 32, 8)],
    }
    return bm.Task.from_features("mine", features | changed, torch.arange(n) % classes)


WRONG = {
    "01.1": [8, 10, 18, 24],
    "01.2": [by_the_mean, axes_mixed_up, column_by_column],
    "01.3": [1 / 19, 0.11, 1.0, 0.55],
    "01.4": [
        {"Audio_1": 0.96, "Audio_2": 0.95, "Audio_3": 0.97, "Audio_4": 0.70},
        {"Audio_4": 0.69},
        {"Audio_1": 0.72, "Audio_2": 0.72, "Audio_3": 0.70, "Audio_4": 0.51},
        0.69,
    ],
    "01.5": [
        task(classes=3),
        task(Sound=torch.randn(80, 16, 32)),
        task(Video=torch.randn(80, 8, 64)),
        task(Smell=torch.randn(80, 5)),
    ],
}
