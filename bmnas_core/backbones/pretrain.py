"""Train a backbone alone, on its own modality, before it is frozen."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..progress import progress_bar
from ..runtime import epoch_batches, seeded


def pretrain(
    backbone: nn.Module,
    inputs: Tensor,
    classes: Tensor,
    items: Tensor,
    *,
    epochs: int = 12,
    batch_size: int = 64,
    max_lr: float = 3e-3,
    shift: int = 0,
    seed: int = 0,
    name: str = "backbone",
    progress: bool = True,
) -> nn.Module:
    """Train ``backbone`` from scratch, under a linear classifier on its last feature's mean.

    Args:
        backbone: from inputs to a list of features; trained in place, left in evaluation mode.
        inputs: (n, …), all items; classes: (n,), what each one shows.
        items: numbers of those to train on.
        shift: move each batch of (N, C, H, W) by up to so many positions along H and W. Features
            that know their training items by heart mislead a search on the same items.

    Returns:
        The classifier that it was trained in: inputs → logits (N, classes). What is frozen and
        searched on is the backbone alone.
    """
    with seeded(seed, "pretrain", name):
        for module in backbone.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        classifier = nn.Sequential(
            backbone, _LastFeatureMean(), nn.LazyLinear(len(classes.unique()))
        )
        classifier(inputs[items[:2]])
        optimizer = torch.optim.AdamW(classifier.parameters(), weight_decay=1e-2)
        steps = -(-len(items) // batch_size) * epochs
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr, steps)
        classifier.train()
        for epoch in progress_bar(range(epochs), f"{name} alone", show=progress):
            for rows in epoch_batches(len(items), batch_size, seed, "pretrain", name, epoch):
                batch = items[rows]
                logits = classifier(_shifted(inputs[batch], shift))
                loss = nn.functional.cross_entropy(logits, classes[batch])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
    return classifier.eval()


def _shifted(inputs: Tensor, most: int) -> Tensor:
    if not most:
        return inputs
    height, width = inputs.shape[-2:]
    down, right = torch.randint(2 * most + 1, (2,)).tolist()
    padded = nn.functional.pad(inputs, (most,) * 4, mode="replicate")
    return padded[..., down : down + height, right : right + width]


class _LastFeatureMean(nn.Module):
    def forward(self, features: list[Tensor]) -> Tensor:
        return features[-1].flatten(2).mean(2)
