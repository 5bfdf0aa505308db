"""How the commands in messages have to be typed: by whom, through what, with which path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import typer.main

from optictl.cli import app
from optictl.deployment.invocation import (
    DEPLOYMENT_COMMANDS,
    OTHER_COMMANDS,
    Invocation,
    needs_sudo,
)
from optictl.host import program

HOME = "/home/ada/.local/bin/optictl"
THROUGH_SUDO = Invocation(HOME, sudo=True, again="check --attack")


def test_every_command_of_optictl_is_known() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    assert sorted(group.commands) == sorted((*DEPLOYMENT_COMMANDS, *OTHER_COMMANDS))


def test_the_documentation_is_spelled_as_it_is() -> None:
    text = "chmod 600 /etc/optillm-proxy/env && optictl install, then optictl check"
    assert Invocation().spell(text) == text


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("optictl install", f"sudo {HOME} install"),
        ("sudo optictl check", f"sudo {HOME} check"),
        ("optictl config schema prints it", f"{HOME} config schema prints it"),
        ("optictl check --user", f"{HOME} check --user"),
        ("optictl fleet plan --limit a", f"{HOME} fleet plan --limit a"),
        ("optictl install; optictl start --user", f"sudo {HOME} install; {HOME} start --user"),
        ("another optictl writes into it", "another optictl writes into it"),
        ("/opt/x/optictl install", "/opt/x/optictl install"),
        ("chmod 600 /etc/x", "sudo chmod 600 /etc/x"),
        ("rm a && optictl install", f"sudo rm a && sudo {HOME} install"),
        ("systemctl --user restart x", "systemctl --user restart x"),
        ("systemctl restart x, then rm y", "sudo systemctl restart x, then sudo rm y"),
        ("kill 5 && tail --pid=5 -f /dev/null", "sudo kill 5 && sudo tail --pid=5 -f /dev/null"),
        ("raise the limit, and kill 5", "raise the limit, and kill 5"),
        ("run it with sudo", f"run it with sudo: sudo {HOME} check --attack"),
    ],
)
def test_through_sudo(text: str, typed: str) -> None:
    assert THROUGH_SUDO.spell(text) == typed
    assert THROUGH_SUDO.spell(typed).count("sudo sudo") == 0


OTHER_DEPLOYMENT = Invocation(
    place="--root /srv/a", config="--config /srv/b.yaml", inventory="-i hosts.yml"
)


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("optictl start", "optictl start --root /srv/a"),
        ("optictl check names it", "optictl check --root /srv/a --config /srv/b.yaml names it"),
        ("optictl init --name two", "optictl init --name two"),
        ("optictl check --root /srv/a", "optictl check --config /srv/b.yaml --root /srv/a"),
        (
            "optictl render litellm > x",
            "optictl render litellm --root /srv/a --config /srv/b.yaml > x",
        ),
        ("optictl config show > x", "optictl config show --root /srv/a > x"),
        ("optictl config schema", "optictl config schema"),
        ("optictl fleet plan --limit a", "optictl fleet plan -i hosts.yml --limit a"),
        ("optictl fleet apply -i b.yml", "optictl fleet apply -i b.yml"),
        ("optictl demo --once", "optictl demo --once"),
    ],
)
def test_a_command_is_for_this_deployment(text: str, typed: str) -> None:
    assert OTHER_DEPLOYMENT.spell(text) == typed


@pytest.mark.parametrize(
    ("is_root", "through_sudo", "scope", "private", "needed"),
    [
        (False, False, "system", False, True),
        (False, False, "system", True, False),
        (False, False, "user", False, False),
        (True, False, "system", False, False),
        (True, True, "system", False, True),
        (True, True, "system", True, True),
        (True, False, "system", True, False),
        (True, True, "user", False, False),
    ],
)
def test_who_needs_sudo(
    is_root: bool, through_sudo: bool, scope: str, private: bool, needed: bool
) -> None:
    assert (
        needs_sudo(is_root=is_root, through_sudo=through_sudo, scope=scope, private=private)
        is needed
    )


class TestWord:
    """What stands for `optictl`, by where a shell finds it."""

    @pytest.fixture
    def own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        own = tmp_path / "tools/optictl/bin/optictl"
        own.parent.mkdir(parents=True)
        own.write_text("#!/bin/sh\n")
        own.chmod(0o755)
        monkeypatch.setattr(program, "own_program", lambda: own)
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        return own

    def test_its_name_where_the_path_leads_to_it(self, own: Path, tmp_path: Path) -> None:
        link = tmp_path / "bin/optictl"
        link.parent.mkdir()
        link.symlink_to(own)
        found = program.invocation(
            "user", False, {"PATH": str(link.parent)}, [str(link), "check", "a b"]
        )
        assert found == Invocation("optictl", False, "check 'a b'")

    def test_the_link_that_was_called_where_sudo_does_not_find_it(
        self, own: Path, tmp_path: Path
    ) -> None:
        link = tmp_path / "my bin/optictl"
        link.parent.mkdir()
        link.symlink_to(own)
        found = program.invocation("system", False, {"PATH": str(link.parent)}, [str(link)])
        assert found == Invocation(f"'{link}'", True, "")

    def test_the_path_of_sudo_counts_behind_sudo(
        self, own: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        behind = {"PATH": str(own.parent), "SUDO_UID": "1000"}
        assert program.invocation("system", False, behind, [str(own)]).program == "optictl"
        behind["PATH"] = "/usr/sbin:/usr/bin"
        assert program.invocation("system", False, behind, [str(own)]).program == str(own)

    def test_another_optictl_on_the_path_is_another(self, own: Path, tmp_path: Path) -> None:
        other = tmp_path / "optictl"
        other.write_text("#!/bin/sh\n")
        other.chmod(0o755)
        found = program.invocation("user", False, {"PATH": str(tmp_path)}, ["optictl"])
        assert found.program == str(own)

    def test_uv_run_leaves_nothing_on_the_path(self, own: Path) -> None:
        environ = {"PATH": str(own.parent), "UV_RUN_RECURSION_DEPTH": "1"}
        assert program.invocation("user", False, environ, [str(own)]).program == str(own)

    def test_without_a_program_it_is_a_module(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(program, "own_program", lambda: None)
        assert program.invocation("user", False, {"PATH": ""}, ["-m"]).program.endswith(
            " -m optictl"
        )
