"""init: the operator's files, with their modes, and never a second time."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from optictl.deployment import config_yaml
from optictl.deployment.config import Config
from optictl.guard import invariants
from testing.support import UNPRIVILEGED, open_directory
from tests.integration.cli.helpers import assert_envelope, optictl, tree, without_privileges

ETC = "etc/optillm-proxy"
MODES = {"optictl.yaml": 0o644, "env": 0o600, "proxy_key": 0o600}


def modes(root: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in (root / ETC).iterdir()}


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000], ids=oct)
def test_three_files_with_their_modes_whatever_the_umask(umask: int, tmp_path: Path) -> None:
    outcome = optictl("init", "--root", "root", home=tmp_path, umask=umask)
    assert (outcome.code, outcome.err) == (0, "")
    assert modes(tmp_path / "root") == MODES
    assert stat.S_IMODE((tmp_path / "root" / ETC).stat().st_mode) == 0o755


def test_they_are_what_a_deployment_needs(tmp_path: Path) -> None:
    outcome = optictl("init", "--root", "root", home=tmp_path)
    etc = tmp_path / "root" / ETC
    assert config_yaml.parse((etc / "optictl.yaml").read_text(), "f") == Config()
    assert (etc / "env").read_text().endswith("OPENAI_API_KEY=\n")
    key = (etc / "proxy_key").read_text().strip()
    assert invariants.key_weakness(key) is None
    assert key not in outcome.out + outcome.err
    for name in MODES:
        assert str(etc / name) in outcome.out


def test_the_next_step_is_about_the_same_deployment(tmp_path: Path) -> None:
    outcome = optictl("init", "--root", "root", home=tmp_path)
    assert f"optictl install --root {tmp_path / 'root'}" in outcome.out


def test_every_key_is_another(tmp_path: Path) -> None:
    for name in "ab":
        optictl("init", "--root", name, home=tmp_path)
    assert len({(tmp_path / name / ETC / "proxy_key").read_text() for name in "ab"}) == 2


def test_a_second_run_touches_nothing(tmp_path: Path) -> None:
    optictl("init", "--root", "root", home=tmp_path)
    (tmp_path / "root" / ETC / "env").write_text("OPENAI_API_KEY=mine\n")
    before = tree(tmp_path)
    outcome = optictl("init", "--root", "root", home=tmp_path)
    assert outcome.code == 0
    assert tree(tmp_path) == before
    assert outcome.out.count("kept ") == 3
    assert "created" not in outcome.out


def test_only_what_is_missing_is_made(tmp_path: Path) -> None:
    etc = tmp_path / "root" / ETC
    etc.mkdir(parents=True)
    (etc / "env").symlink_to("/run/secrets/openai")
    optictl("init", "--root", "root", home=tmp_path)
    assert {p.name for p in etc.iterdir()} == set(MODES)
    assert (etc / "env").readlink() == Path("/run/secrets/openai")


def test_json(tmp_path: Path) -> None:
    first = optictl("init", "--root", "root", "--output", "json", home=tmp_path)
    second = optictl("init", "--root", "root", "-o", "json", home=tmp_path)
    assert (first.code, first.err, second.code, second.err) == (0, "", 0, "")
    for outcome, action in ((first, "create"), (second, "keep")):
        results = assert_envelope(outcome.data, "init", "ok")
        assert [(r["action"], r["target"]) for r in results] == [
            (action, str(tmp_path / "root" / ETC / n)) for n in MODES
        ]
        assert all(r.keys() == {"action", "target", "reason", "diff"} for r in results)
    assert (tmp_path / "root" / ETC / "proxy_key").read_text().strip() not in first.out


def test_a_users_own(tmp_path: Path) -> None:
    outcome = optictl("init", "--user", home=tmp_path)
    assert outcome.code == 0
    assert {p.name for p in (tmp_path / ".config/optillm-proxy").iterdir()} == set(MODES)


class TestWithoutPermission:
    def test_it_says_where_and_what_to_do(self, tmp_path: Path) -> None:
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o555)
        outcome = optictl("init", "--root", closed, home=tmp_path, preexec_fn=without_privileges)
        assert (outcome.code, outcome.out) == (1, "")
        assert f"no permission for {closed}" in outcome.err
        assert "sudo" in outcome.err
        assert "--user or --root DIR" in outcome.err
        assert "Traceback" not in outcome.err
        assert list(closed.iterdir()) == []

    def test_nor_one_to_look(self, tmp_path: Path) -> None:
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o000)
        outcome = optictl("init", "--root", closed, home=tmp_path, preexec_fn=without_privileges)
        assert (outcome.code, outcome.out) == (1, "")
        assert f"no permission for {closed}" in outcome.err

    def test_a_file_where_a_directory_should_be(self, tmp_path: Path) -> None:
        (tmp_path / "root").write_text("")
        outcome = optictl("init", "--root", "root", home=tmp_path)
        assert (outcome.code, outcome.out) == (1, "")
        assert str(tmp_path / "root") in outcome.err
        assert "internal error" not in outcome.err

    @pytest.mark.root
    def test_as_another_user_where_only_root_may_write(self, program: Path) -> None:
        """The first thing that a person without sudo sees."""
        with open_directory() as place:
            identity = {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []}
            outcome = optictl("init", "--root", place, home=place, program=program, **identity)
            assert (outcome.code, outcome.out) == (1, "")
            assert f"no permission for {place}" in outcome.err
            assert "sudo" in outcome.err
            assert list(place.iterdir()) == []
