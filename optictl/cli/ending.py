"""How a run ends: its exit code, and why it failed, for people and in JSON."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from optictl.errors import OptictlError
    from optictl.output.console import Terminal

#: What typer raises for a command line that is wrong; it has the class for itself alone.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]


def command_name(context: Any) -> str:
    """The name of a command without optictl itself, such as "check" or "fleet status"."""
    above = context.parent
    group = f"{command_name(above)} " if above is not None and above.parent is not None else ""
    return f"{group}{context.info_name}" if above is not None else ""


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for JSON, also one that is wrong."""
    pairs = zip(arguments, [*arguments[1:], ""], strict=False)
    spellings = ("--output=json", "-ojson", "-o=json")
    return any(
        word in spellings or (word in ("--output", "-o") and value == "json")
        for word, value in pairs
    )


def failed(terminal: Terminal, failure: BaseException, *, debug: bool) -> int:
    """Print why a command failed. Returns the exit code.

    With `debug` an internal error is raised.
    """
    from optictl.errors import InternalError, OutputFailed, of_exception

    if isinstance(failure, OutputFailed):
        return _output_failed(failure)
    if isinstance(failure, BrokenPipeError) or _of_standard_output() is not None:
        return 1  # `run` says why
    error = of_exception(failure)
    code = terminal.fail(error)
    if debug and isinstance(error, InternalError):
        raise failure
    return code


def run(app: Callable[..., Any], arguments: Sequence[str]) -> int:
    """Run the command line. Nothing but a fault of optictl with --debug ends in a traceback."""
    from optictl.errors import OptictlError

    try:
        code = app(standalone_mode=False)
    except UsageError as wrong:
        code = _wrong_usage(wrong, arguments)
    except typer.Abort:
        code = 130
    except SystemExit as stop:  # shell completion ends this way
        code = stop.code
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        code = 1
    except OptictlError as failure:  # of a help page, which no command prints
        code = _output_failed(failure)
    return _flushed(code if isinstance(code, int) else 0)


#: The words of the library that reads values, and plain ones.
_PLAIN = (
    (r"Value error, ", ""),
    (r"Input should be a valid integer.*", "must be a whole number"),
    (r"Input should be a valid number.*", "must be a number"),
    (r"Input should be greater than or equal to ", "must be at least "),
    (r"Input should be less than or equal to ", "must be at most "),
    (r"Input should ", "must "),
)


def in_plain_words(message: str) -> str:
    """A message about a wrong command line, as a person would say it."""
    for pattern, words in _PLAIN:
        message = re.sub(pattern, words, message)
    return message


def _wrong_usage(wrong: Exception, arguments: Sequence[str]) -> int:
    from optictl.errors import UsageFailure
    from optictl.output.console import Terminal

    context = getattr(wrong, "ctx", None)
    message = in_plain_words(wrong.format_message())  # type: ignore[attr-defined]
    error = UsageFailure(
        message,
        f"{context.command_path if context else 'optictl'} --help shows what is allowed",
    )
    terminal = Terminal(command_name(context) if context else "", "json")
    if wants_json(arguments):
        terminal.envelope_of(error)
    if message:  # else a group without a command, whose help is printed already
        terminal.error(error)
    return error.exit_code


def _output_failed(error: OptictlError) -> int:
    """Say that the standard output cannot be written, once. Returns the exit code."""
    from optictl.host import streams
    from optictl.output.console import Terminal

    streams.abandon_output()
    Terminal().error(error)
    return error.exit_code


def _of_standard_output() -> Exception | None:
    """The reason why the standard output cannot be written, if that is what failed."""
    from optictl.errors import OutputFailed

    try:
        sys.stdout.flush()
    except (OSError, OutputFailed) as failure:
        return failure
    return None


def _flushed(code: int) -> int:
    """Write what is left to the standard output; that it cannot be written is a failure, too."""
    from optictl.errors import OptictlError, output_failed
    from optictl.host import streams

    failure = _of_standard_output()
    if failure is None:
        return code
    if isinstance(failure, BrokenPipeError):
        streams.abandon_output()
        return code or 1  # the reader has gone: no message can reach it
    return _output_failed(
        failure if isinstance(failure, OptictlError) else output_failed(failure)  # type: ignore[arg-type]
    )
