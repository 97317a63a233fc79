"""Notebooks as experiments: set their parameters, run them unattended, keep what they found."""

from .folder import ResumeError
from .parameters import (
    NotebookError,
    Parameter,
    ParameterError,
    notebook_parameters,
    parse_parameters,
)
from .results import (
    BASELINE_FIELDS,
    RESULT_FIELDS,
    RESULT_FILES,
    ResultError,
    best_first,
    collect,
    load_result,
    networks,
    run_title,
    save_run,
)
from .run import RunError, RunInterrupted, RunWarning, run
