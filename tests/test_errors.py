"""Errors: what they say, and that they arrive from another process as they were."""

import pickle
import pkgutil
from importlib import import_module

import pytest
import torch

import bmnas_core
from bmnas_core import BmnasError
from bmnas_core.errors import FileError, check_type, quoted

for module in pkgutil.walk_packages(bmnas_core.__path__, "bmnas_core."):
    if not module.name.endswith("__main__"):
        import_module(module.name)


def subclasses(error: type) -> set[type]:
    return {error}.union(*map(subclasses, error.__subclasses__()))


ERRORS = sorted(subclasses(BmnasError), key=lambda error: error.__name__)


def test_an_error_names_the_place_what_was_found_and_what_is_allowed():
    assert str(BmnasError("L", 0, "an integer of 1 or more")) == (
        "L: found 0; allowed: an integer of 1 or more"
    )
    assert str(BmnasError("no such folder")) == "no such folder"
    assert str(FileError("path", "''", "a file")) == "path: found ''; allowed: a file"


@pytest.mark.parametrize("dask", [False, True], ids=["pickle", "dask"])
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("parts", [("place", "found", "allowed"), ("the whole message",)])
def test_an_error_survives_the_way_from_another_process(error, parts, dask):
    if dask:
        pytest.importorskip("distributed")  # which changes how errors are pickled
    raised = error(*parts)
    arrived = pickle.loads(pickle.dumps(raised))
    assert type(arrived) is error and str(arrived) == str(raised)
    assert all(part in str(arrived) for part in parts)


def test_a_value_of_another_type_is_refused_by_its_type():
    assert check_type("3", str, "name", BmnasError) == "3"
    with pytest.raises(BmnasError, match="^name: found int; allowed: a str$"):
        check_type(3, str, "name", BmnasError)
    with pytest.raises(BmnasError, match="^name: found NoneType; allowed: text$"):
        check_type(None, str, "name", BmnasError, "text")


def test_values_are_quoted_in_one_line_and_cut_if_they_are_long():
    assert quoted("x" * 200, 10) == "'xxxxxxxx…"
    assert quoted(torch.eye(2)) == "tensor([[1., 0.], [0., 1.]])"
    assert quoted("two  spaces\n") == r"'two  spaces\n'"
