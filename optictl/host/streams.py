"""The standard streams: UTF-8 in any locale, and one error where they cannot be written."""

from __future__ import annotations

import io
import locale
import os
import sys
from contextlib import suppress
from typing import Any

from optictl.errors import output_failed


class StandardOutput(io.TextIOWrapper):
    """The standard output. It raises OutputFailed, or BrokenPipeError if its reader left."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            raise
        except OSError as failure:
            raise output_failed(failure) from None

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            raise
        except OSError as failure:
            raise output_failed(failure) from None


class StandardError(io.TextIOWrapper):
    """The standard error. A message that cannot be written changes nothing of the work."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def use_utf8() -> None:
    """Start this program again in Python's UTF-8 mode, if the locale has another encoding.

    Files, arguments and the output of other programs are UTF-8 then, too.
    """
    encoding = locale.getpreferredencoding(False).lower().replace("-", "")
    if not sys.flags.utf8_mode and encoding != "utf8":
        command = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
        os.execv(sys.executable, command)  # noqa: S606


def prepare() -> None:
    """Replace the standard streams. One that is closed is occupied: no file may get its number."""
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # the lowest free number; writing to one that is open for reading is an error
            os.open(os.devnull, flags)
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = _wrapped(StandardOutput, sys.stdout, 1)
    sys.stderr = _wrapped(StandardError, sys.stderr, 2)


def _wrapped(kind: type[io.TextIOWrapper], stream: Any, number: int) -> io.TextIOWrapper:
    buffered = stream.detach() if stream is not None else open(number, "wb", closefd=False)  # noqa: SIM115
    is_terminal = buffered.isatty()
    return kind(buffered, "utf-8", "backslashreplace", line_buffering=is_terminal or number == 2)


def abandon_output() -> None:
    """Python must not try to write what is left at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
