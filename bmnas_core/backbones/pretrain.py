"""Train a backbone alone, on its own modality, before it is frozen."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..config import epoch_batches, seeded


def pretrain(
    backbone: nn.Module,
    inputs: Tensor,
    classes: Tensor,
    items: Tensor,
    *,
    epochs: int = 12,
    batch_size: int = 64,
    max_lr: float = 3e-3,
    seed: int = 0,
    name: str = "backbone",
    progress: bool = True,
) -> nn.Module:
    """Train ``backbone`` with a linear classifier on its last feature, averaged over positions.

    Args:
        inputs: (n, …); classes: (n,); items: numbers of those to train on.

    Returns:
        The backbone, in evaluation mode; the classifier has done its work and is dropped.
    """
    with seeded(seed, "pretrain", name):
        head = nn.LazyLinear(int(classes.max()) + 1)
        net = nn.Sequential(backbone, _LastFeatureMean(), head)
        for module in backbone.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        net(inputs[items[:2]])
        optimizer = torch.optim.AdamW(net.parameters(), weight_decay=1e-2)
        steps = -(-len(items) // batch_size) * epochs
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr, steps)
        for epoch in tqdm(
            range(epochs), f"train {name}", leave=False, disable=not progress or None
        ):
            for rows in epoch_batches(len(items), batch_size, seed, "pretrain", name, epoch):
                batch = items[rows]
                loss = nn.functional.cross_entropy(net(inputs[batch]), classes[batch])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
    return backbone.eval()


class _LastFeatureMean(nn.Module):
    def forward(self, features: list[Tensor]) -> Tensor:
        return features[-1].flatten(2).mean(2)
