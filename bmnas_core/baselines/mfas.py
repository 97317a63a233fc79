"""MFAS, multimodal fusion architecture search (Pérez-Rúa et al. 2019), as a complete baseline.

Its space is a sequence of fusion layers. Layer i reads one feature of every modality and the layer
before it, h_i = f_i(W_i concat(x, y, …, h_{i-1})); the search selects the features and the
activation f_i. It is sequential and model-based. At each depth, a surrogate predicts the validation
score of every extension of the configurations sampled before, and K extensions are sampled by
these predictions, with a temperature. They are trained for a few epochs, with weights shared among
them, and the surrogate learns from their scores.

Features are averaged over their L positions, so W_i is a dense layer, as published. BatchNorm
follows it, as in all networks here; the published code has it as an option. A score is that of the
last epoch. Notebook 06 lists every point.
"""

import math
from dataclasses import dataclass
from functools import partial
from itertools import groupby, product

import torch
from torch import Tensor, nn

from ..config import Config, setting
from ..optimizers import Adam
from ..runtime import generator, seeded
from .context import BaselineContext, Entries, NotDefined, register_baseline
from .fusion_models import dense

ACTIVATIONS = (torch.relu, torch.sigmoid)

#: The most options for a fusion layer that a step of the search considers. Published spaces have
#: fewer; but six modalities of four features make 8,192, and all would be trained at the first.
MAX_LAYERS = 128

#: One fusion layer: the number of a feature for each modality, and of an activation.
Layer = tuple[int, ...]
Configuration = tuple[Layer, ...]


@dataclass(frozen=True, kw_only=True)
class MFASConfig(Config):
    """Settings of the search; the defaults are those published for AV-MNIST.

    The search makes ``iterations`` passes over depths 1 … ``depth``. At each it trains ``samples``
    configurations for ``epochs``. The temperature falls from ``hottest`` to ``coldest``, the more
    slowly the larger ``cooling`` is: see :meth:`MFASSearch.temperature`. At the end the best
    ``finalists`` are trained in full, and the best of these is the result.
    """

    iterations: int = setting(3, ge=1)
    depth: int = setting(4, ge=1)
    samples: int = setting(15, ge=1)
    epochs: int = setting(3, ge=1)
    finalists: int = setting(5, ge=1)
    surrogate_epochs: int = setting(50, ge=1)
    surrogate_lr: float = setting(1e-3, gt=0.0)
    hottest: float = setting(10.0, gt=0.0)
    coldest: float = setting(0.2, gt=0.0)
    cooling: float = setting(4.0, gt=0.0)


class MFASNetwork(nn.Module):
    """The fusion network of a configuration.

    Each layer is a dense one of size ``width``, BatchNorm, the activation and dropout; a linear
    layer follows. ``modalities`` has for each its features' channels, in order.
    """

    def __init__(
        self,
        configuration: Configuration,
        modalities: list[dict[str, int]],
        classes: int,
        *,
        width: int,
        L: int,
        dropout: float,
    ):
        super().__init__()
        self.configuration, self.L = configuration, L
        self.names = [
            [list(m)[k] for m, k in zip(modalities, layer, strict=False)] for layer in configuration
        ]
        channels = {name: c for m in modalities for name, c in m.items()}
        sizes = (sum(channels[name] for name in names) for names in self.names)
        self.layers = nn.ModuleList(
            dense(size + width * (i > 0), width) for i, size in enumerate(sizes)
        )
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, classes)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Pooled features, each (N, C_i, L) → logits (N, classes)."""
        state: list[Tensor] = []
        functions = (ACTIVATIONS[activation] for *_, activation in self.configuration)
        for names, layer, function in zip(self.names, self.layers, functions, strict=True):
            joined = torch.cat([*(features[name].mean(2) for name in names), *state], dim=1)
            state = [self.dropout(function(layer(joined)))]
        return self.linear(state[0])

    def shared(self) -> dict[tuple, nn.Module]:
        """Layers that networks share the weights of, by depth, input size and activation."""
        activations = (activation for *_, activation in self.configuration)
        both = enumerate(zip(self.layers, activations, strict=True))
        return {(i, layer[0].in_features, activation): layer for i, (layer, activation) in both}


class Surrogate(nn.Module):
    """Predicts the score of a configuration from its layers: embedding, LSTM, sigmoid."""

    def __init__(self, numbers: int, size: int = 100):
        super().__init__()
        self.embedding = nn.Linear(numbers, size)
        self.lstm = nn.LSTM(size, size, batch_first=True)
        self.linear = nn.Linear(size, 1)

    def forward(self, configurations: Tensor) -> Tensor:
        """Configurations of one depth, (N, layers, numbers) → scores from 0 to 1, (N,)."""
        states, _ = self.lstm(self.embedding(configurations).sigmoid())
        return self.linear(states[:, -1]).sigmoid()[:, 0]


class MFASSearch:
    """The search; ``scores`` holds the best validation score of each configuration so far."""

    def __init__(self, context: BaselineContext, config: MFASConfig | None = None):
        self.context, self.config = context, MFASConfig.from_optional(config)
        self.modalities = [modality.channels for modality in context.task.modalities]
        self.scores: dict[Configuration, float] = {}
        self._weights: dict[tuple, dict[str, Tensor]] = {}
        self._random = generator(context.seed, "MFAS")
        with seeded(context.seed, "MFAS surrogate"):
            self.surrogate = Surrogate(len(self.modalities) + 1)
        self._optimizer = Adam(self.surrogate.parameters(), lr=self.config.surrogate_lr)

    def layers(self) -> list[Layer]:
        """All options for one fusion layer, or so many random ones if there are more."""
        sizes = [*map(len, self.modalities), len(ACTIVATIONS)]
        if math.prod(sizes) <= MAX_LAYERS:
            return list(product(*map(range, sizes)))
        found: dict[Layer, None] = {}
        while len(found) < MAX_LAYERS:
            sampled = (torch.randint(n, (), generator=self._random) for n in sizes)
            found[tuple(map(int, sampled))] = None
        return list(found)

    def temperature(self, step: int) -> float:
        """The temperature of the draw at a step, counted from 0.

        The first is ``hottest``. After pass p and depth d, both from 0, it becomes coldest +
        (hottest − coldest) exp(−(i + 1)² / cooling²) with i = p · iterations + d. The published
        code multiplies by the number of passes, not by the depth, so that the last draw of a pass
        and the first of the next have the same.
        """
        c = self.config
        if step == 0:
            return c.hottest
        search_pass, depth = divmod(step - 1, c.depth)
        i = search_pass * c.iterations + depth
        return c.coldest + (c.hottest - c.coldest) * math.exp(-(((i + 1) / c.cooling) ** 2))

    def run(self) -> Configuration:
        """Search, train the finalists in full, and return the one that is best on validation."""
        sampled: list[Configuration] = []
        for step in range(self.config.iterations * self.config.depth):
            place = step % self.config.depth
            pairs = product(sampled or [()], self.layers())
            options = [(*start[:place], layer, *start[place + 1 :]) for start, layer in pairs]
            options = list(dict.fromkeys(options))
            if step == 0:  # all are trained, and drawn by the scores that they then have
                self._train(options)
                sampled = self._sample(options, [self.scores[c] for c in options], step)
            else:
                sampled = self._sample(options, self._predict(options), step)
                self._train(sampled)
        finalists = sorted(self.scores, key=self.scores.__getitem__)[-self.config.finalists :]
        full = self.context.recipe_on_train()

        def full_score(configuration: Configuration) -> float:
            build = partial(self.network, configuration)
            return self.context.validate(self.context.fit(build, full))

        return self.context.metric.best(finalists, key=full_score)

    def network(self, configuration: Configuration, shared: bool = False) -> MFASNetwork:
        """A configuration's network at the context's sizes, untrained or with shared weights."""
        task, config = self.context.task, self.context.config
        sizes = {"width": config.C, "L": config.L, "dropout": config.dropout}
        net = MFASNetwork(configuration, self.modalities, task.classes, **sizes)
        for key, part in net.shared().items() if shared else ():
            part.load_state_dict(self._weights.get(key, part.state_dict()))
        return net

    def _train(self, configurations: list[Configuration]) -> None:
        short = self.context.recipe_on_train(self.config.epochs)
        for configuration in configurations:
            build = partial(self.network, configuration, shared=True)
            net = self.context.fit(build, short)
            self._weights |= {key: part.state_dict() for key, part in net.shared().items()}
            score = self._from_0_to_1(self.context.validate(net))
            self.scores[configuration] = max(score, self.scores.get(configuration, 0.0))
        self._learn()

    def _from_0_to_1(self, score: float) -> float:
        """What the surrogate predicts: the score itself, or 1 less an error."""
        return score if self.context.metric.direction == "max" else 1 - score

    def _learn(self) -> None:
        """Fit the surrogate to all scores so far; a batch is all configurations of one depth."""
        groups = [list(group) for _, group in groupby(sorted(self.scores, key=len), len)]
        for _ in range(self.config.surrogate_epochs):
            for group in groups:
                target = torch.tensor([self.scores[c] for c in group], dtype=torch.float)
                found = self.surrogate(torch.tensor(group, dtype=torch.float))
                self._optimizer.zero_grad()
                nn.functional.mse_loss(found, target).backward()
                self._optimizer.step()

    def _predict(self, options: list[Configuration]) -> list[float]:
        with torch.no_grad():
            return self.surrogate(torch.tensor(options, dtype=torch.float)).tolist()

    def _sample(
        self, options: list[Configuration], scores: list[float], step: int
    ) -> list[Configuration]:
        """Sample options, each at most once, with odds of score^(1 / temperature)."""
        # A score of 0 has next to no odds, but some, so that there are always enough options.
        logs = torch.tensor(scores, dtype=torch.float64).clamp(min=1e-6).log()
        odds = (logs / self.temperature(step)).softmax(0)
        count = min(self.config.samples, len(options))
        rows = torch.multinomial(odds, count, generator=self._random)
        return [options[row] for row in rows.tolist()]


@register_baseline("MFAS")
def mfas(context: BaselineContext) -> Entries:
    """MFAS with its published settings, on the features and by the recipe of all baselines."""
    if not context.metric.share:
        found = f"metric {context.task.metric!r}"
        raise NotDefined("MFAS", found, "one from 0 to 1, which its surrogate predicts")
    search = MFASSearch(context)
    best = context.search_once("MFAS", search.run)
    yield "MFAS", [context.fit(partial(search.network, best))]
