"""Wrong answers to the exercises of notebook 03."""

import torch

from bmnas_core.cells import RELAXATIONS


class HardAlways:
    columns = ("X", "Y")

    @staticmethod
    def weights(logits):
        soft = logits.softmax(dim=0)
        hard = torch.zeros_like(soft).scatter(0, soft.argmax(0, keepdim=True), 1.0)
        return tuple((hard + soft - soft.detach()).unbind(dim=1))


class WithoutGradient:
    columns = ("X", "Y")

    @staticmethod
    def weights(logits):
        soft = logits.softmax(dim=0)
        if not logits.requires_grad:
            return tuple(soft.unbind(dim=1))
        return tuple(torch.zeros_like(soft).scatter(0, soft.argmax(0, keepdim=True), 1.0).T)


WRONG = {
    "03.1": [lambda F, N: N * F, lambda F, N: N * F + N * (N + 1) // 2],
    "03.2": [lambda M: 2 * M, lambda M: M * (M + 1) // 2],
    "03.3": [30 * 42 * 192**2, 30 * 40 * 192, 15 * 20 * 192**2],
    "03.4": [
        lambda logits: logits.softmax(dim=0)[:, 1],
        lambda logits: logits.softmax(dim=1)[:, 0],
        lambda logits: logits[:, 1].sigmoid(),
    ],
    "03.5": [RELAXATIONS["pair"], HardAlways, WithoutGradient],
}
