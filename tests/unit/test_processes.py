"""Which processes hold a socket for a service, and which serve it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from optictl.host import processes


@pytest.mark.parametrize(
    ("program", "is_manager"),
    [
        ("/usr/lib/systemd/systemd", True),
        ("/usr/lib/systemd/systemd (deleted)", True),
        # a service of a crash loop in the moment before it becomes its program
        ("/usr/lib/systemd/systemd-executor", True),
        ("/usr/bin/python3.11", False),
        ("/srv/systemd/python", False),
    ],
)
def test_only_systemd_holds_sockets_for_others(
    program: str, is_manager: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_link", lambda path: Path(program))
    assert processes._is_manager(os.getpid()) is is_manager


def test_another_users_process_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_link", lambda path: None)
    assert processes._is_manager(os.getpid()) is False
    assert processes._is_manager(2**30) is False  # it has ended
