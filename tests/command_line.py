"""The command ``bmnas``, called in this process."""

from typer.testing import CliRunner

from bmnas_core.cli import app


def bmnas(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def bmnas_fails(*args, code=2):
    """What it says, in one line, if it fails with this exit status."""
    done = bmnas(*args)
    assert done.exit_code == code, done.output
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    return done.stderr
