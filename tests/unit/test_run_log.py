"""The log file of a changing command: its mode, its lines, how many stay."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from optictl.errors import OptictlError
from optictl.host import run_log
from optictl.host.run_log import RunLog
from optictl.output.console import Terminal


def test_it_holds_what_was_said_before_and_after_it_was_opened(tmp_path: Path) -> None:
    log = RunLog()
    log.write("planned")
    log.open(tmp_path / "log", "fleet wheelhouse")
    log.write("built\nproven")
    assert log.path is not None
    assert "fleet-wheelhouse" in log.path.name
    lines = log.path.read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["planned", "built", "proven"]


def test_only_its_owner_can_read_it_from_the_beginning(tmp_path: Path) -> None:
    log = RunLog()
    log.open(tmp_path / "log", "install")
    assert log.path is not None
    assert log.path.stat().st_mode & 0o777 == 0o600
    assert log.path.parent.stat().st_mode & 0o777 == 0o700


def test_the_oldest_go(tmp_path: Path) -> None:
    for number in range(run_log.KEPT + 3):
        (tmp_path / f"2026{number:04}-install-1.log").write_text("")
    log = RunLog()
    log.open(tmp_path, "install")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert len(left) == run_log.KEPT
    assert left[0] == "20260004-install-1.log"


def test_a_place_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file")
    log = RunLog()
    log.open(tmp_path / "log", "install")
    log.write("built")
    assert log.path is None


def test_nothing_stays_of_a_deployment_that_is_gone(tmp_path: Path) -> None:
    log = RunLog()
    log.open(tmp_path / "log", "uninstall")
    log.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_failure_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal("install")
    terminal.fail(OptictlError("it failed", "fix it"))
    assert "log " not in capsys.readouterr().err
    terminal.run_log.open(tmp_path, "install")
    terminal.fail(OptictlError("it failed", "fix it", "the last words of a tool"))
    assert f"log    {terminal.run_log.path}" in capsys.readouterr().err
    assert terminal.run_log.path is not None
    text = terminal.run_log.path.read_text()
    assert all(words in text for words in ("it failed", "fix it", "the last words of a tool"))


def test_it_gets_what_modules_log_about_programs(tmp_path: Path) -> None:
    terminal = Terminal("install")
    terminal.run_log.open(tmp_path, "install")
    with terminal.listening():
        logging.getLogger("optictl.host.uv").debug("ran uv: exit %d", 0)
    logging.getLogger("optictl.host.uv").debug("ran uv: exit %d", 1)
    assert terminal.run_log.path is not None
    text = terminal.run_log.path.read_text()
    assert "ran uv: exit 0" in text
    assert "exit 1" not in text
