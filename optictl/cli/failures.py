"""How commands end: exit codes, and errors that a person can act on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

#: sysexits.h EX_CONFIG
CONFIG_INVALID = 78
INTERRUPTED = 130
ROLLED_BACK = 4

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
    from optictl.deployment.config import ConfigError
    from optictl.errors import OptictlError, RolledBack
    from optictl.output import console

    if isinstance(failure, ConfigError):
        remedy = f"edit {failure.source}; optictl config schema prints what may stand there"
        if json_command:
            console.failure(
                json_command, str(failure), remedy, [vars(problem) for problem in failure.problems]
            )
        console.config_error(failure, remedy)
        return CONFIG_INVALID
    if isinstance(failure, PermissionError):
        failure = OptictlError(
            f"no permission for {failure.filename}",
            remedy="run it with sudo, or use --user or --root DIR",
        )
    if isinstance(failure, OSError) and failure.filename:
        failure = OptictlError(
            f"{failure.strerror}: {failure.filename}", remedy="mend it and run the command again"
        )
    if isinstance(failure, OptictlError):
        if json_command:
            console.failure(json_command, failure.what, failure.remedy, failure.problems)
        console.error(failure)
        return ROLLED_BACK if isinstance(failure, RolledBack) else 1
    if json_command:
        console.failure(json_command, f"internal error (please report it): {failure}", "")
    if debug:
        raise failure
    console.unexpected(failure)
    return 1
