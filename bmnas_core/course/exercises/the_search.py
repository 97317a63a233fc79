"""Exercises of notebook 04, the search."""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from ...networks import Hypernet
from ...train import TrainConfig, cosine_restarts
from ..checks import exercise
from . import answers

READ = (
    "training batch", "validation batch", "test batch",
    "weights before their update", "weights after their update",
)  # fmt: skip
DECIDES = ("the training data", "the validation data", "the initial α, β and γ")


@exercise(
    "04.1",
    "It needs a batch, and the weights at which the loss of that batch is computed.",
    "Read the loop of section 4 again: which of the two optimisers takes its step first?",
)
def what_the_architecture_reads(answer):
    return answers.names(answer, {"validation batch", "weights after their update"}, READ)


@exercise(
    "04.2",
    "Section 3 has the exact slope as a sum of two parts. Only dw*/da is not among the four.",
    "∂L_train/∂w, taken at (w*(a), a), is 0 whatever a is. So its derivative by a is 0, too.",
    "Write that derivative with the chain rule: a changes it directly, and through w*. Then solve "
    "for dw*/da.",
)
def exact_slope(answer):
    cases = [(0.5, -2.0, 1.5, 0.75), (-1.25, 0.5, 4.0, -3.0), (0.0, 1.0, 0.5, 2.0)]
    return answers.function(
        answer,
        lambda val_a, val_w, train_ww, train_wa: val_a - val_w * train_wa / train_ww,
        cases,
        1e-6,
    )


@exercise(
    "04.3",
    "Which cosine is it on? They start at epochs 0, 1, 3, 7, … and are 1, 2, 4, … epochs long.",
    "Subtract 1, 2, 4, … as long as enough is left. What is left is t, and the number that would "
    "come next is T.",
)
def learning_rate(answer):
    cases = [(epochs,) for epochs in (0, 0.25, 0.5, 1, 2.5, 2.99, 3, 5, 6.9, 10.25)]
    return answers.function(answer, _rate, cases, 1e-7)


def _rate(epochs: float) -> float:
    """As in the searches of the notebook."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=3e-3)
    config = TrainConfig(max_lr=3e-3, min_lr=1e-6, restart=1)
    cosine_restarts(optimizer, config).step(epochs)
    return optimizer.param_groups[0]["lr"]


@exercise(
    "04.4",
    "There are two losses, one for each optimiser, and the second one is computed after the first "
    "optimiser has stepped.",
    "`loss.backward()` adds to the gradients that are there already, those of all parameters.",
    "Each optimiser sets its own gradients to zero before `backward`, and steps after it.",
)
def bilevel_update(answer):
    if wrong := answers.called(answer):
        return wrong
    channels = {"A_1": 3, "A_2": 5, "B_1": 4}
    how = {"C": 4, "L": 2, "N": 2, "M": 1, "operations": ("sum", "linear_glu", "concat_fc")}
    mine = Hypernet(channels, 3, relaxation="pair", dropout=0.0, **how)
    wanted = copy.deepcopy(mine)
    of_mine, of_wanted = _optimizers(mine), _optimizers(wanted)
    for k in (1, 2, 3):
        batches = [_batch(channels) for _ in ("train", "validation")]
        _update(wanted, *of_wanted, *batches)
        answer(mine, *of_mine, *batches)
        if _differ(mine.weight_parameters(), wanted.weight_parameters()):
            return f"After update {k} the weights are not what they should be."
        if _differ(mine.architecture_parameters(), wanted.architecture_parameters()):
            return f"After update {k} α, β and γ are not what they should be."
    return None


def _optimizers(net: Hypernet) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Of the weights, and of α, β, γ."""
    both = net.weight_parameters(), net.architecture_parameters()
    return tuple(torch.optim.SGD(own, lr=0.1, momentum=0.5) for own in both)


def _batch(channels: dict[str, int]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Features, each (16, C, 2), and labels (16,)."""
    features = {name: torch.randn(16, C, 2) for name, C in channels.items()}
    return features, torch.randint(3, (16,))


def _update(net, weight_step, architecture_step, train, validation) -> None:
    for optimizer, (features, labels) in ((weight_step, train), (architecture_step, validation)):
        optimizer.zero_grad()
        F.cross_entropy(net(features), labels).backward()
        optimizer.step()


def _differ(some: list[nn.Parameter], others: list[nn.Parameter]) -> bool:
    pairs = zip(some, others, strict=True)
    return not all(torch.allclose(one, other, atol=1e-5) for one, other in pairs)


@exercise(
    "04.5",
    "At this rate Adam moves α, β and γ by about 0.00003 in 329 steps. How far apart are they at "
    "the start?",
    "`argmax` compares them with each other; it does not matter how small the differences are.",
)
def what_decides(answer):
    return answers.word(answer, "the initial α, β and γ", DECIDES)
