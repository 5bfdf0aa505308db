"""The tests of this directory start no process and open no socket: fast, and at home everywhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

#: The audit events that Python's documentation names for a new process or socket.
_FORBIDDEN = frozenset(
    {
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.system",
        "socket.__new__",
        "socket.getaddrinfo",
        "subprocess.Popen",
    }
)
#: What the running test did of it; None between tests.
_seen: list[str] | None = None


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _FORBIDDEN and _seen is not None:
        _seen.append(f"{event} {arguments}")
        pytest.fail(f"a unit test may not do this: {_seen[-1]}; move it to tests/integration")


sys.addaudithook(_refuse)  # a hook cannot be removed


@pytest.fixture(scope="package", autouse=True)
def _neither_process_nor_network() -> Iterator[None]:
    """For the whole directory, so that fixtures of modules are judged, too."""
    global _seen
    _seen = []
    yield
    _seen = None


@pytest.fixture(autouse=True)
def _told() -> Iterator[None]:
    """Code that catches everything hides the refusal: the test fails all the same."""
    before = len(_seen or ())
    yield
    assert (_seen or [])[before:] == []
