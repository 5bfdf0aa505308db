"""--output json when a command cannot do its work: one envelope on stdout, with the reason."""

from __future__ import annotations

from pathlib import Path

from tests.integration.cli.helpers import assert_envelope, configured, optictl


def test_an_error_with_its_remedy(tmp_path: Path) -> None:
    root = configured(tmp_path / "root")
    outcome = optictl("smoke", "moa-tom", "--root", root, "--output", "json", home=tmp_path)
    assert outcome.code == 2
    assert assert_envelope(outcome.data, "smoke", "failed") == []
    assert outcome.data["error"]["what"].startswith(
        "moa-tom is not an enabled strategy on a base model"
    )
    assert "moa-jerry-xl" in outcome.data["error"]["remedy"]
    assert "moa-tom is not" in outcome.err


def test_every_problem_of_a_configuration(tmp_path: Path) -> None:
    root = configured(tmp_path / "root", "listen:\n  port: 0\nmodle: x\n")
    outcome = optictl("install", "--dry-run", "--root", root, "-o", "json", home=tmp_path)
    assert outcome.code == 78
    assert assert_envelope(outcome.data, "install", "failed") == []
    problems = outcome.data["error"]["problems"]
    assert [(p["path"], p["line"]) for p in problems] == [("listen.port", 2), ("modle", 3)]
    assert all(p["message"] for p in problems)


def test_without_a_terminal(tmp_path: Path) -> None:
    outcome = optictl(
        "install", "--root", configured(tmp_path / "root"), "-o", "json", home=tmp_path
    )
    assert outcome.code == 1
    assert_envelope(outcome.data, "install", "failed")
    assert "--yes" in outcome.data["error"]["remedy"]


def test_a_defect(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "from optictl.operations import initialize\n"
        "def broken(*_): raise RuntimeError('injected')\ninitialize.initialize = broken\n"
    )
    outcome = optictl(
        "init",
        "--root",
        "root",
        "-o",
        "json",
        home=tmp_path,
        variables={"PYTHONPATH": str(tmp_path)},
    )
    assert outcome.code == 1
    assert_envelope(outcome.data, "init", "failed")
    assert "injected" in outcome.data["error"]["what"]


def test_a_command_of_a_group_has_its_whole_name(tmp_path: Path) -> None:
    (tmp_path / "inventory.yml").write_text("all:\n  hosts:\n")
    outcome = optictl("fleet", "status", "-i", "inventory.yml", "-o", "json", home=tmp_path)
    assert outcome.code == 1
    assert_envelope(outcome.data, "fleet status", "failed")
