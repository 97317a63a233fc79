"""Any PyTorch model as a backbone: the outputs of its submodules, read by forward hooks."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType

import torch
from torch import Tensor, nn

from ..config import fit_fields
from ..errors import BmnasError, check_type, in_line, near_miss, quoted
from ..genotype import check_features
from ..networks import FeatureError
from ..runtime import seeded

#: How a module's output may be laid out → the shapes that it may have.
LAYOUTS = {
    "channels_first": "(n, C), (n, C, T), (n, C, H, W) or (n, C, T, H, W)",
    "channels_last": "(n, C), (n, T, C), (n, H, W, C) or (n, T, H, W, C)",
    "tokens": "(n, T, C)",
}

#: Layers whose channels are the last axis, each with how many it gives; layers with axis 1.
LAST_AXIS = {
    nn.Linear: lambda layer: layer.out_features,
    nn.Embedding: lambda layer: layer.embedding_dim,
    nn.LayerNorm: lambda layer: layer.normalized_shape[-1],
    nn.RMSNorm: lambda layer: layer.normalized_shape[-1],
    nn.RNNBase: lambda layer: (layer.proj_size or layer.hidden_size) * (1 + layer.bidirectional),
}
FIRST_AXIS = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)

#: Names that an error lists at most.
MAX_LISTED = 8


def tap(
    model: nn.Module,
    taps: Mapping[str, str | Tap],
    *,
    call: Callable[[nn.Module, Tensor], object] | None = None,
) -> Tapped:
    """A backbone that gives the outputs of a model's submodules as features.

    ::

        bm.tap(resnet, {"Image_1": "layer1", "Image_2": "layer2"})
        bm.tap(bert, {"Text_1": bm.Tap("encoder.layer.3", layout="tokens")},
               call=lambda model, ids: model(input_ids=ids, attention_mask=ids != 0))

    Args:
        model: any network. It is neither changed nor copied, and keeps no hooks.
        taps: feature name → the name of a submodule, as ``model.named_modules()`` gives it, or a
            :class:`Tap`. The order is that of the features.
        call: calls the model with a batch of inputs; by default ``model(inputs)``. Its value is
            ignored. Its code and the plain values and functions that it uses are read here once,
            and belong to what determines the features.

    Raises FeatureError for a model that is none, and for names that do not exist or cannot be read.
    """
    return Tapped(model, taps, call)


@dataclass(frozen=True)
class Tap:
    """Which output of a model is a feature, and how its axes are read.

    Attributes:
        module: a name of ``model.named_modules()``; ``""`` is the model itself.
        output: for a module that does not return a tensor: index into its tuple, key of its dict,
            or name of an attribute.
        layout: where the channels are, see :data:`LAYOUTS`. By default ``"channels_first"``; an
            output that looks as if its channels came last is refused until this says which.
            ``"channels_last"`` moves them behind n; ``"tokens"``, (n, T, C), becomes (n, C, T).
        skip: tokens to drop at the start, such as a class token.
        grid: (h, w) of tokens that are an image's patches, in reading order: (n, C, h, w).
    """

    module: str
    output: int | str | None = None
    layout: str | None = None
    skip: int = 0
    grid: tuple[int, int] | None = None

    def __post_init__(self):
        fit_fields(self, FeatureError)
        if self.layout not in (None, *LAYOUTS):
            found = f"{self.layout!r}{near_miss(self.layout, LAYOUTS)}"
            raise FeatureError("Tap.layout", found, ", ".join(map(repr, LAYOUTS)))
        for name, low in (("skip", 0), ("grid", 1)):
            value = getattr(self, name)
            if value and self.layout != "tokens":
                raise FeatureError(f"Tap.{name}", f"{value} without tokens", "layout='tokens'")
            if value is not None and min((value,) if name == "skip" else value) < low:
                raise FeatureError(f"Tap.{name}", value, f"at least {low}")

    def pick(self, output: object, place: str) -> Tensor:
        """The tensor in a module's output, copied: later layers may work in place."""
        picked, where = output, place
        if self.output is not None:
            picked, where = self._part(output, place), f"{place}, output {self.output!r}"
        if not isinstance(picked, Tensor):
            ways = _ways_to_pick(picked) if self.output is None else ""
            allowed = f"a tensor, or {ways}" if ways else "a tensor"
            raise FeatureError(where, _described(picked), allowed)
        if picked.is_nested or picked.layout is not torch.strided or picked.is_complex():
            allowed = "a plain tensor of real numbers"
            raise FeatureError(where, "a tensor that is nested, sparse or complex", allowed)
        return picked.clone()

    def _part(self, output: object, place: str) -> object:
        key = self.output
        if isinstance(output, Mapping) and key in output:
            return output[key]
        if isinstance(output, (tuple, list)) and isinstance(key, int):
            if -len(output) <= key < len(output):
                return output[key]
        elif isinstance(key, str) and not isinstance(output, Tensor) and hasattr(output, key):
            return getattr(output, key)
        hint = near_miss(key, map(str, output)) if isinstance(output, Mapping) else ""
        allowed = _ways_to_pick(output) or "none, for a tensor"
        raise FeatureError(f"{place}: output", f"{key!r}{hint} of {_described(output)}", allowed)

    def arrange(self, tensor: Tensor, n: int, module: nn.Module, place: str) -> Tensor:
        """A picked tensor of n items with its channels behind n: (n, C, …)."""
        shape, layout = tuple(tensor.shape), self.layout or "channels_first"
        axes = (3,) if layout == "tokens" else (2, 3, 4, 5)
        if len(shape) not in axes or shape[0] != n or 0 in shape:
            found, allowed = f"shape {shape} from {n} items", LAYOUTS[layout]
            others = ", or another layout= or output=" if self.layout is None else ""
            raise FeatureError(place, found, f"{layout} {allowed} with n = {n}{others}")
        if self.layout is None and len(shape) > 2 and shape[-1] == _last_channels(module):
            named = "'tokens' or 'channels_last'" if len(shape) == 3 else "'channels_last'"
            found = f"shape {shape}, which ends with the {shape[-1]} channels of its last layer"
            allowed = f"layout={named} if they come last, 'channels_first' if not"
            raise FeatureError(place, found, allowed)
        if layout == "channels_first":
            return tensor
        if layout == "channels_last":
            return tensor.movedim(-1, 1)
        tokens = tensor[:, self.skip :].transpose(1, 2)
        left, needed = tokens.shape[2], self.grid and self.grid[0] * self.grid[1]
        if not left or (needed and left != needed):
            found = f"{shape[1]} tokens, {left} of them behind skip={self.skip}"
            allowed = f"{needed} for grid={self.grid}" if needed else f"more than {self.skip}"
            raise FeatureError(place, found, allowed)
        return tokens.unflatten(2, self.grid) if self.grid else tokens


class Tapped(nn.Module):
    """What :func:`tap` makes: a batch of inputs → the list of features, each (n, C, …).

    The model runs as a whole. If it calls a module several times in one pass, the last output
    counts. Hooks are there only during the pass, and nothing is kept after it; gradients flow.
    ``copy.deepcopy`` copies the model too.
    """

    def __init__(
        self,
        model: nn.Module,
        taps: Mapping[str, str | Tap],
        call: Callable[[nn.Module, Tensor], object] | None = None,
    ):
        super().__init__()
        check_type(model, nn.Module, "model", FeatureError, "a torch.nn.Module")
        if isinstance(model, torch.jit.ScriptModule):
            raise FeatureError("model", "a ScriptModule, which calls no hooks", "the model itself")
        #: the taps by feature name, as a tuple: it tells banks of different taps apart
        self.taps = _checked_taps(model, taps)
        if call is not None and not inspect.isfunction(call):
            raise FeatureError("call", quoted(call), "a function of the model and a batch")
        self.model, self.call = model, call
        self.call_code = repr(_code(call)) if call else ""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features, in order."""
        return tuple(name for name, _ in self.taps)

    def forward(self, inputs: Tensor) -> list[Tensor]:
        found: dict[str, Tensor] = {}
        own, handles = threading.get_ident(), []

        def keeper(name: str, one: Tap) -> Callable:
            def keep(module: nn.Module, args: tuple, output: object) -> None:
                if threading.get_ident() == own:  # another thread may run the same model
                    found[name] = one.pick(output, _place(name, one))

            return keep

        try:
            for name, one in self.taps:
                module = self.model.get_submodule(one.module)
                handles.append(module.register_forward_hook(keeper(name, one)))
            if self.call is None:
                self.model(inputs)
            else:
                self.call(self.model, inputs)
        finally:
            for handle in handles:
                handle.remove()
        return [self._arranged(name, one, found, inputs.shape[0]) for name, one in self.taps]

    def _arranged(self, name: str, one: Tap, found: dict[str, Tensor], n: int) -> Tensor:
        place = _place(name, one)
        if name not in found:
            raise FeatureError(place, "no call of it", "a module that the model calls")
        return one.arrange(found[name], n, self.model.get_submodule(one.module), place)

    def extra_repr(self) -> str:
        return "\n".join(f"{name}: {one}" for name, one in self.taps)


def dry_run(backbone: nn.Module, inputs: Tensor, place: str) -> object:
    """What a backbone gives for a batch in evaluation mode; it is left as it was.

    Parameters, buffers, training flags and random streams do not change. Raises FeatureError for
    whatever the backbone raises.
    """
    device = next((p.device for p in backbone.parameters()), torch.device("cpu"))
    try:
        with evaluating(backbone), torch.no_grad(), seeded(0, "dry run", device=device):
            return backbone(inputs.to(device))
    except BmnasError:
        raise
    except Exception as error:  # whatever a foreign model raises
        found = f"{type(error).__name__}: {in_line(error)}"
        given = f"{tuple(inputs.shape)} of {inputs.dtype}"
        raise FeatureError(place, found, f"a model that reads inputs of shape {given}") from error


@contextmanager
def evaluating(module: nn.Module):
    """A block with all parts of a module in evaluation mode; afterwards each is in its own."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        yield module.eval()
    finally:
        for part, mode in modes:
            part.training = mode


def _place(name: str, one: Tap) -> str:
    return f"tap {name!r} ({one.module or 'the model itself'})"


def _checked_taps(model: nn.Module, taps: object) -> tuple[tuple[str, Tap], ...]:
    """Feature names with their taps. Raises FeatureError, or GenotypeError for a bad name."""
    if not isinstance(taps, Mapping) or not taps:
        allowed = "a dict from feature names to names of submodules"
        raise FeatureError("taps", quoted(taps), allowed)
    check_features(tuple(taps))
    modules, checked = dict(model.named_modules(remove_duplicate=False)), {}
    for name, given in taps.items():
        one = Tap(given) if isinstance(given, str) else given
        check_type(one, Tap, f"tap {name!r}", FeatureError, "the name of a submodule, or a bm.Tap")
        if one.module not in modules:
            found = f"module {one.module!r}{near_miss(one.module, modules)}"
            raise FeatureError(f"tap {name!r}", found, _children(one.module, modules))
        kind = type(modules[one.module])
        if inspect.getattr_static(kind, "forward") is nn.Module.forward:
            found = f"{one.module!r}, a {kind.__name__}, which is never called"
            raise FeatureError(f"tap {name!r}", found, _children(f"{one.module}.", modules))
        if one in checked.values():
            first = next(other for other, same in checked.items() if same == one)
            allowed = "another module or output"
            raise FeatureError(f"tap {name!r}", f"the same as tap {first!r}", allowed)
        checked[name] = one
    return tuple(checked.items())


def _children(name: str, modules: Mapping[str, nn.Module]) -> str:
    """The submodules at the place that a name means, such as ``layer1.0`` for ``layer1.9``."""
    parent = name
    while parent:
        parent = parent.rpartition(".")[0]
        if parent in modules:
            break
    start = f"{parent}." if parent else ""
    rest = (key.removeprefix(start) for key in modules if key.startswith(start))
    names = [start + key for key in rest if key and "." not in key]
    return _listed(names) if names else "'', the model itself, which has no submodules"


def _listed(names: Iterable[object]) -> str:
    names = list(names)
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(map(str, names[:MAX_LISTED])) + more


def _described(output: object) -> str:
    """What an output is, in a few words."""
    kind = type(output).__name__
    if isinstance(output, Mapping):
        return f"a {kind} with {_listed(output)}"
    return f"a {kind} of {len(output)}" if isinstance(output, (tuple, list)) else f"a {kind}"


def _ways_to_pick(output: object) -> str:
    """How ``output=`` picks from an output that is no tensor."""
    if isinstance(output, Mapping) and output:
        return f"output={quoted(next(iter(output)))}, … to pick from it"
    if isinstance(output, (tuple, list)) and output:
        last = f" … {len(output) - 1}" if len(output) > 1 else ""
        return f"output=0{last} to pick from it"
    tensors = [k for k, v in getattr(output, "__dict__", {}).items() if isinstance(v, Tensor)]
    return f"output={tensors[0]!r}, … to pick from it" if tensors else ""


def _last_channels(module: nn.Module) -> int | None:
    """Channels of a module's last layer if that treats the last axis as channels, else None."""
    for part in reversed(list(module.modules())):
        if isinstance(part, FIRST_AXIS):
            return None
        for kind, channels in LAST_AXIS.items():
            if isinstance(part, kind):
                return channels(part)
    return None


def _code(function: FunctionType, seen: tuple = ()) -> list:
    """A function's code, and the plain values and functions that it uses."""
    if function in seen:
        return []
    used = inspect.getclosurevars(function)
    around = sorted((used.globals | used.nonlocals).items())
    found = _instructions(function.__code__)
    found.append((function.__defaults__, function.__kwdefaults__))
    for name, value in around:
        if isinstance(value, FunctionType):
            found.append((name, _code(value, (*seen, function))))
        elif isinstance(value, (bool, int, float, str, type(None))):
            found.append((name, value))
    return found


def _instructions(code: CodeType) -> list:
    """Instructions and constants, without the names of files and the numbers of lines."""
    found = [code.co_code.hex(), code.co_names]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            constant = _instructions(constant)
        elif isinstance(constant, frozenset):  # its order differs between processes
            constant = sorted(map(repr, constant))
        found.append(constant)
    return found
