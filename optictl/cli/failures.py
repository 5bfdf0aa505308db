"""How commands end: exit codes, and errors that a person can act on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

INTERRUPTED = 130

debug = False
json_command: str | None = None
"""The command whose failure is told in JSON too, on stdout: --output json was given."""


def guarded(app: Callable[[], Any]) -> int:
    """Run the command line; no failure but with --debug ends in a traceback."""
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # here, where a reader that went away can still be dealt with
    except SystemExit as stop:  # typer ends every command this way
        return stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # the reader went away; nothing more can be said, and Python must not try at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as failure:  # noqa: BLE001
        return _explain(failure)
    return 0


def _explain(failure: Exception) -> int:
    from optictl.errors import InternalError, of_exception
    from optictl.output import console

    error = of_exception(failure)
    if json_command:
        console.failure(json_command, error)
    if debug and isinstance(error, InternalError):
        raise failure
    console.error(error)
    return error.exit_code
