"""The log of the service: JSON lines on stdout, without prompts and keys.

OptiLLM logs prompts, answers and upstream errors. While the service serves, the log has only the
source line of such a message, and its text without the values. While it loads there are no requests
yet, and messages are logged unchanged.
"""

from __future__ import annotations

import json
import linecache
import logging
import re
import sys
from typing import Any

_EVENT = "guard"


class JsonLines(logging.Formatter):
    """One JSON object per record. Only the guard's own records keep their text."""

    def __init__(self) -> None:
        super().__init__()
        self.loading = True

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
            elif record.name.startswith(("gunicorn", "uvicorn")):
                # after a colon may be a malformed header line with a key; after " /" a path
                event["message"] = record.getMessage().split(": ")[0].split(" /")[0]
            else:
                event |= _in_other_words(record)
        return json.dumps(event, ensure_ascii=False)


def _in_other_words(record: logging.LogRecord) -> dict[str, str]:
    """What can be said of a message whose text may hold a client's data: the kind of the exception,
    and the text as it is in the source, with the names of its values in place of the values.
    """
    words = {}
    if record.exc_info and record.exc_info[0]:
        words["exception"] = record.exc_info[0].__name__
    lines = range(record.lineno, record.lineno + _CALL_LINES)
    source = "".join(linecache.getline(record.pathname, number) for number in lines)
    if literal := _LITERAL.search(source):
        words["statement"] = literal[2]
    return words


#: A call of a logger has its text on one of so few lines.
_CALL_LINES = 3
_LITERAL = re.compile(r"""(["'])((?:(?!\1)[^\\\n]|\\.)+)\1""")


class UnusedPlugins(logging.Filter):
    """Holds back OptiLLM's errors about packaged plugins that the closure omits on purpose.

    `ServiceLog.serving` logs them when an enabled strategy is missing.
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


_log = logging.getLogger("guard")


class ServiceLog:
    """The log of this process. Create it before OptiLLM configures logging."""

    def __init__(self) -> None:
        self._formatter, self._unused = JsonLines(), UnusedPlugins()
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(self._formatter)
        handler.addFilter(self._unused)
        root = logging.getLogger()
        root.handlers[:] = [handler]
        root.setLevel(logging.WARNING)
        _log.setLevel(logging.INFO)
        logging.captureWarnings(True)  # pydantic's warnings quote what an upstream sent

    def serving(self, explain: list[str]) -> None:
        """From now on, log only the source line of a message: it may contain a client's data.

        `explain`: enabled strategies that OptiLLM did not load. If there are any, log OptiLLM's
        errors about its plugins.
        """
        if explain:
            for message in self._unused.held:
                write("plugin_failed", message=message)
        self._unused.held.clear()
        self._formatter.loading = False
        # OptiLLM sets a lower level on some loggers: raise it, to save the work for dropped records
        for logger in map(logging.getLogger, list(logging.root.manager.loggerDict)):
            if logger is not _log:
                logger.setLevel(max(logger.level, logging.WARNING))


def write(event: str, **fields: Any) -> None:
    """Log an event of the guard. No field may be a prompt or a key."""
    _log.info(event, extra={_EVENT: {"event": event, **fields}})
