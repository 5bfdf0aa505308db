"""The service's log: JSON lines on stdout, never a prompt, never a key.

OptiLLM writes prompts, answers and upstream errors into its log messages. While the
service serves, such a message is reduced to the place in the source that wrote it;
while it loads (no request exists yet) it passes as it is.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

_EVENT = "guard"


class JsonLines(logging.Formatter):
    """One JSON object a record. Only the guard's own records keep their words."""

    loading = True

    def format(self, record: logging.LogRecord) -> str:
        event = getattr(record, _EVENT, None)
        if event is None:
            event = {
                "event": "log",
                "level": record.levelname.lower(),
                "at": f"{record.name}:{record.lineno}",
            }
            if self.loading:
                event["message"] = record.getMessage()
            elif record.name.startswith("gunicorn"):
                # a malformed header line, key and all, follows the colon; a path the word "request"
                event["message"] = record.getMessage().split(": ")[0].split(" /")[0]
            elif record.exc_info and record.exc_info[0]:
                event["exception"] = record.exc_info[0].__name__
        return json.dumps(event, ensure_ascii=False)


class UnusedPlugins(logging.Filter):
    """Holds back OptiLLM's errors about packaged plugins that the closure leaves out on purpose.

    They are told after all when a strategy that was asked for is missing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING and not hasattr(record, _EVENT):
            return False
        if record.getMessage().startswith("Error loading package plugin"):
            self.held.append(record.getMessage())
            return False
        return True


_formatter = JsonLines()
_unused = UnusedPlugins()
_log = logging.getLogger("guard")


def start() -> None:
    """Take over the root logger before OptiLLM configures it. Warnings and worse pass."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_formatter)
    handler.addFilter(_unused)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    _log.setLevel(logging.INFO)
    logging.captureWarnings(True)  # pydantic's quote what an upstream sent


def serving(explain: list[str]) -> None:
    """From now on messages may hold what clients sent: only their place is kept.

    `explain` are strategies that were asked for and not loaded: what OptiLLM said about
    its plugins is written down for them.
    """
    if explain:
        for message in _unused.held:
            write("plugin_failed", message=message)
    _unused.held.clear()
    _formatter.loading = False
    # OptiLLM gives some of its loggers a level of their own: what `UnusedPlugins` drops is not even made
    for logger in map(logging.getLogger, list(logging.root.manager.loggerDict)):
        if logger is not _log:
            logger.setLevel(max(logger.level, logging.WARNING))


def write(event: str, **fields: Any) -> None:
    """One line of the guard's own. The caller sees to it that no field is a prompt or a key."""
    _log.info(event, extra={_EVENT: {"event": event, **fields}})
