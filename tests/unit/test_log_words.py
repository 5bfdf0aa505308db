"""What the service's log says of a message whose text may hold a client's data."""

from __future__ import annotations

import json
import logging

from optictl.guard.logs import JsonLines


class Lines(logging.Handler):
    """Keeps each record as the log has it."""

    def __init__(self) -> None:
        super().__init__()
        self.formatter = JsonLines()
        self.formatter.loading = False
        self.events: list[dict[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.events.append(json.loads(self.format(record)))


def logged() -> list[dict[str, str]]:
    """The events of an error with a secret in its text, on one line and on two."""
    lines, secret = Lines(), "the client's question"
    logger = logging.getLogger("optillm.moa")
    logger.addHandler(lines)
    logger.propagate = False
    try:
        logger.error(f"Error in the critique: {secret}")
        logger.error(
            f'Could not parse "{secret}"',
        )
        try:
            raise KeyError(secret)
        except KeyError:
            logger.exception(secret)
    finally:
        logger.removeHandler(lines)
    return lines.events


def test_the_text_of_the_source_is_there_and_the_values_are_not() -> None:
    first, second, third = logged()
    assert first["statement"] == "Error in the critique: {secret}"
    assert second["statement"] == 'Could not parse "{secret}"'
    assert third["exception"] == "KeyError"
    assert "question" not in json.dumps([first, second, third])
