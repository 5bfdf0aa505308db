"""Which optictl a unit may run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import optictl
from optictl.host import files, program


def test_the_program_of_this_installation_is_found() -> None:
    path = program.own_program()
    assert path is not None
    assert os.access(path, os.X_OK)


def test_none_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda *_: str(tmp_path))
    assert program.own_program() is None
    assert "not installed as a program" in program.unfit_reason(as_root=False)


def test_root_runs_nothing_out_of_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "own_program", lambda: Path("/home/jerry/.local/bin/optictl"))
    assert (
        program.unfit_reason(as_root=True)
        == "/home/jerry/.local/bin/optictl is in a private home, below /home"
    )
    assert program.unfit_reason(as_root=False) == ""


@pytest.mark.root
def test_root_runs_nothing_that_others_can_change(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tool = tmp_path / "tool"
    tool.mkdir(mode=0o755)
    (tool / "optictl").write_text("")
    (tool / "optictl").chmod(0o755)
    assert (
        files.changeable_by_others([tool / "optictl"]) is None
    )  # /tmp above it is everybody's, and sticky
    tool.chmod(0o777)
    assert files.changeable_by_others([tool / "optictl"]) == tool
    tool.chmod(0o755)
    os.chown(tool / "optictl", 65534, 65534)
    assert files.changeable_by_others([tool / "optictl"]) == tool / "optictl"
    for name, value in (("own_program", lambda: tool / "optictl"), ("HOMES", ())):
        monkeypatch.setattr(program, name, value)
    monkeypatch.setattr("sys.executable", "/usr/bin/python3")
    monkeypatch.setattr(optictl, "__file__", "/usr/bin/python3")
    assert "users other than root can change" in program.unfit_reason(as_root=True)
