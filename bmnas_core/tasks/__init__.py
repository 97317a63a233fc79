"""Tasks: data, backbones, metric and settings, one file each."""

from . import avmnist as _avmnist
from . import digits as _digits
from .inputs import DataError, DataWarning, FileInputs
from .task import TASKS, Modality, Split, Task, TaskError, load_task, register_task

DATA_SETS = {"digits": _digits.DATA, "avmnist": _avmnist.DATA}

__all__ = [
    "DATA_SETS",
    "TASKS",
    "DataError",
    "DataWarning",
    "FileInputs",
    "Modality",
    "Split",
    "Task",
    "TaskError",
    "load_task",
    "register_task",
]
