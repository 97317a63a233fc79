"""Registries: one behaviour for everything that has a name and can be added to."""

import subprocess
import sys

import pytest
import torch

import bmnas_core as bm
from bmnas_core.registry import Registry


def loss(logits, labels):
    return torch.nn.functional.cross_entropy(logits, labels)


def operation():
    class Product(torch.nn.Module):
        def __init__(self, C, L, dropout):
            super().__init__()

        def forward(self, x, y):
            return x * y

    return Product


def relaxation():
    class Uniform:
        columns = ("X", "Y")

        @staticmethod
        def weights(logits):
            share = torch.full((len(logits),), 1 / len(logits))
            return share, share

    return Uniform


def selection():
    return lambda weights: bm.derive(weights)


def task():
    return lambda option=1: None


def metric():
    return lambda logits, labels: 0.5


def baseline():
    def baseline(context):
        yield "nothing", []

    return baseline


def strategy():
    return lambda task, benchmark, device: None


#: Kind → registry, how a part is registered, one that works, the class of its errors, a known name.
KINDS = {
    "operation": (bm.OPERATIONS, bm.register_operation, operation, bm.OperationError, "attention"),
    "relaxation": (bm.RELAXATIONS, bm.register_relaxation, relaxation, bm.RelaxationError, "paper"),
    "selection": (bm.SELECTIONS, bm.register_selection, selection, bm.SelectionError, "argmax"),
    "task": (bm.TASKS, bm.register_task, task, bm.TaskError, "avmnist"),
    "metric": (
        bm.METRICS,
        lambda name: bm.register_metric(name, loss),
        metric,
        bm.TaskError,
        "accuracy",
    ),
    "baseline": (bm.BASELINES, bm.register_baseline, baseline, bm.BaselineError, "CentralNet"),
    "strategy": (bm.STRATEGIES, bm.register_strategy, strategy, bm.StrategyError, "second order"),
}


@pytest.fixture(params=KINDS, ids=KINDS)
def kind(request):
    registry, register, part, error, known = KINDS[request.param]
    with registry.restored():
        yield registry, register, part, error, known


def test_what_is_registered_is_found_listed_and_counted(kind):
    registry, register, part, _, known = kind
    before = len(registry)
    given = part()
    assert register("mine_1")(given) is given
    assert "mine_1" in registry and list(registry)[-1] == "mine_1" and len(registry) == before + 1
    assert registry.names.endswith(", mine_1") and known in registry.names


def test_an_unknown_name_is_refused_with_the_nearest_one(kind):
    registry, _, _, error, known = kind
    expected = rf"found '{known[:-1]}' \(did you mean '{known}'\?\); allowed: .*{known}"
    with pytest.raises(error, match=expected):
        registry[known[:-1]]
    with pytest.raises(error, match="found 3; allowed: "):
        registry[3]
    assert registry.get("nothing like it") is None and 3 not in registry


def test_a_name_that_something_else_has_is_refused(kind):
    registry, register, part, error, known = kind
    before = registry[known]
    with pytest.raises(error, match=f"'{known}' exists already: bmnas_core"):
        register(known)(part())
    assert registry[known] is before


def test_the_same_definition_run_again_replaces_the_part(kind):
    registry, register, part, _, _ = kind
    register("mine_1")(part())
    again = part()
    register("mine_1")(again)
    assert getattr(registry["mine_1"], "owner", registry["mine_1"]) is again


@pytest.mark.parametrize("name", ["", " ", "a\nb", 3, None])
def test_an_ill_formed_name_is_refused(kind, name):
    _, register, part, error, _ = kind
    with pytest.raises(error, match="name: found "):
        register(name)(part())


@pytest.mark.parametrize("broken", [3, None, "text", type("Empty", (), {})])
def test_what_does_not_work_is_refused_when_it_is_registered(kind, broken):
    registry, register, _, error, _ = kind
    with pytest.raises(error, match="mine_1"):
        register("mine_1")(broken)
    assert "mine_1" not in registry


@pytest.mark.parametrize(
    ("weights", "found"),
    [
        (lambda logits: logits[:, 0], "found weights"),
        (lambda logits: (logits[:, 0], logits[:, 1] - 5), "found weights"),
        (lambda logits: (logits, logits), "found weights"),
        (lambda logits: 1 / 0, "raised ZeroDivisionError"),
    ],
)
def test_a_relaxation_without_weights_for_x_and_y_is_refused(weights, found):
    mine = type("Mine", (), {"columns": ("X", "Y"), "weights": staticmethod(weights)})
    with pytest.raises(bm.RelaxationError, match=f"relaxation 'mine': .*{found}"):
        bm.register_relaxation("mine")(mine)


def test_a_registered_relaxation_can_be_searched_with():
    from tiny import tiny_task

    with bm.RELAXATIONS.restored():
        bm.register_relaxation("uniform")(relaxation())
        search = bm.Search(tiny_task(), bm.SearchConfig(relaxation="uniform"), device="cpu")
        names, x, _ = [*search][-1].weights.cell_edges(0)
    assert x.tolist() == pytest.approx([1 / len(names)] * len(names))


def test_a_registered_metric_scores_a_search():
    from tiny import tiny_task

    with bm.METRICS.restored():

        @bm.register_metric("error_free", loss=loss)
        def error_free(logits, labels):
            return 1 - float((logits.argmax(1) != labels).double().mean())

        mine = bm.Search(tiny_task(metric="error_free"), device="cpu")
        usual = bm.Search(tiny_task(), device="cpu")
        assert [*mine][-1].val_score == pytest.approx([*usual][-1].val_score)


@pytest.mark.slow
def test_parts_on_demand_are_known_at_once_and_imported_when_asked_for():
    script = (
        "import sys, bmnas_core as bm\n"
        "assert {'digits', 'ntu'} <= set(bm.TASKS)\n"
        "print([name for name in sys.modules if 'bmnas_core.tasks.paper' in name])\n"
        "bm.TASKS['ntu']\n"
        "print('bmnas_core.tasks.paper.ntu' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split("\n")[:2] == ["[]", "True"], done.stderr


def test_a_part_imported_while_a_registry_is_to_be_restored_stays(tmp_path, monkeypatch):
    registry = Registry("thing", bm.BmnasError, on_demand={"a": "registers_a", "b": "none"})
    (tmp_path / "registers_a.py").write_text("import sys\nsys.things.add('a', 1)\n")
    monkeypatch.setattr(sys, "things", registry, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with registry.restored():
        assert registry["a"] == 1
    assert registry["a"] == 1 and set(registry) == {"a", "b"}


def test_a_restored_registry_has_what_it_had_before():
    registry = Registry("thing", bm.BmnasError)
    registry.add("a", 1)
    with registry.restored():
        registry.add("b", 2)
        del registry["a"]
        assert list(registry) == ["b"]
    assert list(registry) == ["a"]
