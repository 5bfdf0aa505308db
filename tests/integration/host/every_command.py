"""Run many command lines of optictl in one process: a fork for each, after one import.

Stdin: a JSON list of argument lists. Stdout: a JSON list of [exit code, output of both streams].
Only the standard library and optictl: the interpreter is that of a bare installation.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sys
import tempfile
from contextlib import suppress


def imported() -> None:
    """Import all of optictl, except what an extra or a release brings."""
    import optictl.cli

    for module in pkgutil.walk_packages(optictl.__path__, "optictl."):
        if ".guard" not in module.name and "__main__" not in module.name:
            with suppress(ImportError):
                importlib.import_module(module.name)


def run(words: list[str]) -> tuple[int, str]:
    """The exit code of a command line, and what it prints."""
    with tempfile.TemporaryFile() as output:
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            sys.argv = ["optictl", *words]
            code = 70
            try:
                from optictl.cli import main

                main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0
            finally:
                sys.stdout.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        output.seek(0)
        return os.waitstatus_to_exitcode(status), output.read().decode(errors="replace")


if __name__ == "__main__":
    imported()
    json.dump([run(words) for words in json.load(sys.stdin)], sys.stdout)
