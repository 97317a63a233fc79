"""Tasks: data, backbones, metric and settings, one file each."""

from . import avmnist as _avmnist
from . import digits as _digits
from . import egogesture as _egogesture
from . import mmimdb as _mmimdb
from . import ntu as _ntu
from .inputs import DataError, DataWarning, FileInputs
from .task import TASKS, Modality, Split, Task, TaskError, load_task, register_task

DATA_SETS = {
    entry.name: entry
    for entry in (_digits.DATA, _avmnist.DATA, _mmimdb.DATA, _ntu.DATA, _egogesture.DATA)
}

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
