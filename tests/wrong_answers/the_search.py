"""Wrong answers to the exercises of notebook 04."""

import math

from torch.nn import functional as F


def both_at_once(net, weight_step, architecture_step, train, validation):
    for optimizer, (features, labels) in ((weight_step, train), (architecture_step, validation)):
        optimizer.zero_grad()
        F.cross_entropy(net(features), labels).backward()
    weight_step.step()
    architecture_step.step()


def on_training_data(net, weight_step, architecture_step, train, validation):
    for optimizer in (weight_step, architecture_step):
        optimizer.zero_grad()
        F.cross_entropy(net(train[0]), train[1]).backward()
        optimizer.step()


def architecture_first(net, weight_step, architecture_step, train, validation):
    for optimizer, (features, labels) in ((architecture_step, validation), (weight_step, train)):
        optimizer.zero_grad()
        F.cross_entropy(net(features), labels).backward()
        optimizer.step()


def never_zeroed(net, weight_step, architecture_step, train, validation):
    for optimizer, (features, labels) in ((weight_step, train), (architecture_step, validation)):
        F.cross_entropy(net(features), labels).backward()
        optimizer.step()


def weights_alone(net, weight_step, architecture_step, train, validation):
    weight_step.zero_grad()
    F.cross_entropy(net(train[0]), train[1]).backward()
    weight_step.step()


def without_restarts(epochs):
    return 1e-6 + (3e-3 - 1e-6) * (1 + math.cos(math.pi * epochs / 7)) / 2


def of_equal_length(epochs):
    return 1e-6 + (3e-3 - 1e-6) * (1 + math.cos(math.pi * (epochs % 1))) / 2


WRONG = {
    "04.1": [
        {"validation batch", "weights before their update"},
        {"training batch", "validation batch", "weights after their update"},
        {"validation batch"},
    ],
    "04.2": [
        lambda val_a, val_w, train_ww, train_wa: val_a,
        lambda val_a, val_w, train_ww, train_wa: val_a + val_w * train_wa / train_ww,
        lambda val_a, val_w, train_ww, train_wa: val_a - val_w * train_ww / train_wa,
    ],
    "04.3": [without_restarts, of_equal_length],
    "04.4": [both_at_once, on_training_data, architecture_first, never_zeroed, weights_alone],
    "04.5": ["the training data", "the validation data"],
}
