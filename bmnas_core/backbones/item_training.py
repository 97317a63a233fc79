"""Train a backbone without a classifier of its own on what each item shows."""

import math
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..config import Settings
from ..data_parallel import processes
from ..errors import BmnasError
from ..kept_training import KeptTraining
from ..optimizers import AdamW
from ..progress import progress_bar
from ..runtime import epoch_batches, seeded
from ..tensor_files import tensor_hash
from .backbone import last_mean

#: Most pixels by which a batch of images (N, C, H, W) is shifted along H and W. A search is misled
#: by features that memorise the training items it learns from.
SHIFT = 2


def train_on_items(
    task,
    modality,
    config: Settings,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool = True,
    on_epoch: Callable[[dict], None] | None = None,
) -> tuple[nn.Module, list[dict]]:
    """Train a modality's backbone from scratch to tell the classes of its items.

    It learns from the training split's items, under a linear classifier on the mean of its last
    feature, by AdamW with one cycle of the learning rate (Smith and Topin 2019).

    The backbone is trained in place and left in evaluation mode. Of ``config``, ``epochs``,
    ``batch_size``, ``max_lr`` and ``weight_decay`` are read.

    Returns:
        The backbone under its classifier, inputs → logits (N, item classes), and one record an
        epoch. Their ``validation_score`` is the accuracy on the validation split's items.

    Raises BmnasError when the loss stops being finite.
    """
    inputs, classes, history = modality.inputs, modality.classes, []
    train, held_out = (task.items(split, modality.name) for split in ("train", "validation"))
    stream = ("pretrain", modality.name)
    with seeded(seed, *stream, device=torch.device(device)):
        for module in modality.backbone.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        last = nn.LazyLinear(len(classes.unique()))
        classifier = nn.Sequential(modality.backbone, _LastMean(), last).to(device)
        classifier(inputs[train[:2]].to(device))  # gives the lazy layer its size
        optimizer = AdamW(classifier.parameters(), weight_decay=config.weight_decay)
        steps = -(-len(train) // config.batch_size) * config.epochs
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.max_lr, steps)
        made_from = *stream, seed, config, modality.inputs_hash, tensor_hash(train)
        kept, random = KeptTraining("training", classifier, None, *made_from), torch.get_rng_state()
        for record in kept.begin(optimizer, {"random": random}):
            history.append(record)
            if on_epoch:
                on_epoch(record)
        if history:
            torch.set_rng_state(random)
            schedule.last_epoch = steps // config.epochs * len(history) - 1
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it misses the optimiser's earlier steps
                schedule.step()
        team = processes(torch.device(device))
        team.align(classifier)
        epochs = range(len(history), config.epochs)
        for epoch in progress_bar(epochs, f"{modality.name} alone", show=progress):
            start, losses = time.perf_counter(), []
            classifier.train()
            for rows in epoch_batches(len(train), config.batch_size, seed, *stream, epoch):
                (batch,) = team.share(train[rows].tensor_split(team.count))
                shown = inputs[batch]
                shown = random_shift(shown, SHIFT) if shown.dim() == 4 else shown
                logits = classifier(shown.to(device))
                loss = nn.functional.cross_entropy(logits, classes[batch].to(device))
                loss = loss * (len(batch) / len(rows))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                team.sum_gradients(classifier.parameters())
                optimizer.step()
                schedule.step()
                losses.append(loss.detach())
            team.align(classifier)
            mean = float(team.total(torch.stack(losses).mean()))
            if not math.isfinite(mean):
                raise BmnasError(f"training loss in epoch {epoch + 1}", mean, "finite")
            classifier.eval()
            with torch.no_grad():
                parts = [classifier(inputs[k].to(device)).argmax(1) for k in held_out.split(256)]
            right = torch.cat(parts).cpu() == classes[held_out]
            record = {"epoch": epoch + 1, "lr": schedule.get_last_lr()[0], "train_loss": mean}
            record["validation_score"] = float(right.double().mean())
            history.append(record | {"seconds": time.perf_counter() - start})
            random.copy_(torch.get_rng_state())
            kept.add(history[-1], finished=epoch + 1 == config.epochs)
            if on_epoch:
                with torch.random.fork_rng(devices=[]):  # it may draw random numbers
                    on_epoch(history[-1])
    return classifier.eval(), history


def random_shift(images: Tensor, most: int, random: torch.Generator | None = None) -> Tensor:
    """Images (…, C, H, W) moved together by up to ``most`` pixels, their border repeated."""
    height, width = images.shape[-2:]
    down, right = torch.randint(2 * most + 1, (2,), generator=random).tolist()
    padded = nn.functional.pad(images, (most,) * 4, mode="replicate")
    return padded[..., down : down + height, right : right + width]


class _LastMean(nn.Module):
    def forward(self, features: list[Tensor]) -> Tensor:
        return last_mean(features)
