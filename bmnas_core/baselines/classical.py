"""What anyone would try first: scikit-learn's models of all features."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from .context import BaselineContext, Entries, register_baseline


class Fitted(nn.Module):
    """A fitted scikit-learn model as a network: features, flattened → logits, or values.

    ``learned``, the numbers that it consists of, is there to be counted.
    """

    def __init__(self, model, names: tuple[str, ...], classes: int, L: int, learned: np.ndarray):
        super().__init__()
        self.model, self.names, self.classes, self.L = model, names, classes, L
        self.learned = nn.Parameter(torch.from_numpy(learned))

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Pooled features, each (N, C_i, L) → logits (N, classes)."""
        rows, device = flat(features, self.names), features[self.names[0]].device
        if not hasattr(self.model, "predict_proba"):
            values = self.model.predict(rows).reshape(len(rows), self.classes)
            return torch.from_numpy(values).float().to(device)
        # Classes that no sample had, and certainty, must leave logits finite.
        p = self.model.predict_proba(rows).astype(float).clip(1e-12, 1 - 1e-12)
        logits = np.full((len(rows), self.classes), np.log(1e-12))
        multi_label = getattr(self.model, "multilabel_", False)
        logits[:, self.model.classes_] = np.log(p / (1 - p)) if multi_label else np.log(p)
        return torch.from_numpy(logits).float().to(device)


def flat(features: dict[str, Tensor], names: tuple[str, ...]) -> np.ndarray:
    """Named features, each (N, C_i, L), as rows of numbers (N, Σ C_i · L)."""
    return torch.cat([features[name].flatten(1) for name in names], dim=1).cpu().numpy()


def fitted(context: BaselineContext, model, learned: Callable[[object], np.ndarray]) -> Fitted:
    """A model, fitted to all features of all samples that the context's recipe trains on.

    If a sample has several labels or values, each has a model of its own. ``learned`` returns the
    numbers that a fitted one consists of.
    """
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.multioutput import MultiOutputRegressor

    task, (features, labels) = context.task, context.samples()
    several, kind = labels.dim() > 1, type(model)
    if task.targets is not None:  # networks give standardised values
        labels = task.targets.standardised(labels).reshape(labels.shape)
    if several:
        model = (OneVsRestClassifier if task.targets is None else MultiOutputRegressor)(model)
    model.fit(flat(features, task.features), labels.cpu().numpy())
    parts = model.estimators_ if several else [model]
    # A label that all samples have, or none, has no classifier but a constant.
    numbers = np.concatenate([learned(part) for part in parts if isinstance(part, kind)])
    return Fitted(model, task.features, task.classes, context.config.L, numbers)


def _class_weights(context: BaselineContext) -> dict[int, float] | None:
    """The task's, where a sample has one label."""
    one = context.task.label_kind == "classes" and context.task.class_weights
    return dict(enumerate(context.task.class_weights)) if one else None


@register_baseline("logistic regression", ignores=("C", "epochs", "max_lr"))
def logistic_regression(context: BaselineContext) -> Entries:
    """A linear model of all features, with the recipe's weight decay as its penalty.

    Of values it is ridge regression (Hoerl and Kennard 1970), whose penalty is chosen by leaving
    out each sample in turn.
    """
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # scikit-learn weighs the sum of losses by C against half the squared weights; here weight
    # decay weighs the latter against their mean.
    decay = context.config.weight_decay * len(context.samples()[1])
    values = context.task.label_kind == "values"
    if values:
        linear = RidgeCV(np.logspace(-3, 5, 17))
    else:
        weights = _class_weights(context)
        C = 1 / decay if decay else np.inf
        linear = LogisticRegression(C=C, max_iter=1000, class_weight=weights)

    def learned(pipeline) -> np.ndarray:
        scaler, linear = (step for _, step in pipeline.steps)
        parts = scaler.mean_, scaler.scale_, linear.coef_, linear.intercept_
        return np.concatenate([np.ravel(part) for part in parts])

    label = "ridge regression" if values else "logistic regression"
    yield label, [fitted(context, make_pipeline(StandardScaler(), linear), learned)]


@register_baseline("gradient boosting", ignores=("C", "epochs", "max_lr"))
def gradient_boosting(context: BaselineContext) -> Entries:
    """Boosted trees on all features (Friedman 2001), with scikit-learn's settings but for one.

    The squared values of leaves have a penalty of 1, as in XGBoost (Chen and Guestrin 2016).
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    def learned(model) -> np.ndarray:
        """Every threshold, and every value of a leaf."""
        nodes = [tree.nodes for trees in model._predictors for tree in trees]
        parts = (np.where(n["is_leaf"], n["value"], n["num_threshold"]) for n in nodes)
        return np.concatenate(list(parts))

    # Without a penalty, Newton steps of 28 classes diverge on voice: test accuracy falls to 0.06.
    values = context.task.label_kind == "values"
    how = {"l2_regularization": 1.0, "random_state": context.seed}
    if values:
        model = HistGradientBoostingRegressor(**how)
    else:
        model = HistGradientBoostingClassifier(**how, class_weight=_class_weights(context))
    yield "gradient boosting", [fitted(context, model, learned)]
