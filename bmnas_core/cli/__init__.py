"""The ``bmnas`` command."""

from .app import app, main
