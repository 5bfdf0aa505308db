"""Which interpreter a release is built on, and what makes a release another one."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from optictl import paths, releases, render
from optictl.config import Config
from optictl.errors import OptictlError
from optictl.host import uv
from optictl.host.files import closed_to_others
from optictl.host.uv import Interpreter
from tests.support import open_directory


def python(version: str, closed: str | None = None) -> Interpreter:
    major, minor, micro = (int(part) for part in version.split("."))
    return Interpreter(Path(f"/usr/bin/python{version}"), (major, minor, micro), Path(closed) if closed else None)


class TestChoice:
    def test_the_newest_that_fits(self) -> None:
        best, passed = releases.choose_interpreter([python("3.10.1"), python("3.12.4"), python("3.11.9")], True)
        assert best == python("3.12.4")
        assert passed == []

    @pytest.mark.parametrize("version", ["2.7.18", "3.9.19", "3.14.0", "4.0.0"])
    def test_not_one_without_wheels(self, version: str) -> None:
        best, passed = releases.choose_interpreter([python(version), python("3.10.1")], True)
        assert best == python("3.10.1")
        assert len(passed) == 1
        assert version in passed[0]
        assert "3.10 to 3.13" in passed[0]

    def test_not_one_under_a_private_home(self) -> None:
        private = python("3.13.1", closed="/root")
        best, passed = releases.choose_interpreter([private, python("3.11.2")], others_must_reach=True)
        assert best == python("3.11.2")
        assert passed == [f"{private}: the service user cannot enter /root"]

    def test_a_private_one_is_good_for_whoever_owns_it(self) -> None:
        private = python("3.13.1", closed="/home/jerry")
        assert releases.choose_interpreter([private, python("3.11.2")], others_must_reach=False) == (private, [])

    def test_none_that_fits(self) -> None:
        best, passed = releases.choose_interpreter([python("3.9.1"), python("3.12.1", closed="/root")], True)
        assert best is None
        assert len(passed) == 2

    def test_none_at_all(self) -> None:
        assert releases.choose_interpreter([], True) == (None, [])

    def test_which_were_passed_over_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(uv, "interpreters", lambda: [python("3.14.0"), python("3.11.2")])
        said: list[str] = []
        assert releases.interpreter(True, None, said.append) == python("3.11.2")
        assert len(said) == 1
        assert said[0].startswith("passed over /usr/bin/python3.14.0")

    def test_no_interpreter_is_an_error_with_a_way_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(uv, "interpreters", lambda: [python("3.12.1", closed="/root")])
        with pytest.raises(OptictlError) as caught:
            releases.interpreter(True, None, lambda _: None)
        assert "python" in caught.value.remedy
        assert "/root" in caught.value.detail


class TestInspection:
    def test_a_venv_is_seen_through(self) -> None:
        """A release must not stand on somebody's virtual environment."""
        seen = uv.inspect(Path(sys.executable))
        assert seen is not None
        assert seen.version == sys.version_info[:3]
        assert seen.path == Path(os.path.realpath(sys._base_executable))  # type: ignore[attr-defined]

    @pytest.mark.parametrize("text", ["#!/bin/sh\nexit 1\n", "#!/bin/sh\necho hello\n", "no program\n"])
    def test_what_is_no_python_is_none(self, text: str, tmp_path: Path) -> None:
        program = tmp_path / "python"
        program.write_text(text)
        program.chmod(0o755)
        assert uv.inspect(program) is None

    def test_what_is_not_there_is_none(self, tmp_path: Path) -> None:
        assert uv.inspect(tmp_path / "python") is None

    def test_a_chosen_one_that_does_not_run_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(OptictlError, match="not a Python interpreter"):
            releases.interpreter(True, tmp_path / "python", lambda _: None)


class TestClosedToOthers:
    @pytest.fixture
    def place(self) -> Iterator[Path]:
        with open_directory() as directory:
            (directory / "home/bin").mkdir(parents=True)
            program = directory / "home/bin/python"
            program.write_text("")
            for path in (directory / "home", directory / "home/bin", program):
                path.chmod(0o755)
            yield directory

    def test_open(self, place: Path) -> None:
        assert closed_to_others([place / "home/bin/python", place / "home"]) is None

    @pytest.mark.parametrize("mode", [0o700, 0o750, 0o754])
    def test_a_private_directory_above(self, place: Path, mode: int) -> None:
        (place / "home").chmod(mode)
        assert closed_to_others([place / "home/bin/python"]) == place / "home"

    def test_a_directory_that_may_be_entered_but_not_listed_is_open(self, place: Path) -> None:
        (place / "home").chmod(0o711)
        assert closed_to_others([place / "home/bin/python"]) is None

    @pytest.mark.parametrize("mode", [0o700, 0o744, 0o711])
    def test_a_program_that_others_cannot_execute_or_read(self, place: Path, mode: int) -> None:
        (place / "home/bin/python").chmod(mode)
        assert closed_to_others([place / "home/bin/python"]) == place / "home/bin/python"

    def test_what_a_link_points_at_counts(self, place: Path) -> None:
        (place / "home").chmod(0o700)
        (place / "python").symlink_to("home/bin/python")
        assert closed_to_others([place / "python"]) == place / "home"

    def test_any_of_several_paths_counts(self, place: Path) -> None:
        (place / "home/bin").chmod(0o700)
        assert closed_to_others([place / "home", place / "home/bin"]) == place / "home/bin"

    def test_what_is_gone_is_closed(self, place: Path) -> None:
        assert closed_to_others([place / "gone/python"]) == place / "gone"


class TestReleaseId:
    """`ID` is the version and the hash of all that a release is made of."""

    @pytest.fixture
    def id_now(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
        """Today's release id, with the lock, the guard and the plugins in `tmp_path`, free to be edited."""
        templates = tmp_path / "templates"
        shutil.copytree(render.template_directory() / "locks", templates / "locks")
        shutil.copytree(releases.GUARD, tmp_path / "guard")
        monkeypatch.setattr(releases, "GUARD", tmp_path / "guard")
        monkeypatch.setattr(render, "template_directory", lambda: templates)
        places = paths.system(tmp_path / "root")
        places.etc.mkdir(parents=True)
        (places.etc / "mine.py").write_text('SLUG = "mine"\n')

        def now(**fields: object) -> str:
            return releases.wanted(Config(**fields), places).id  # type: ignore[arg-type]

        return now

    @staticmethod
    def edit(path: Path) -> None:
        path.write_text(path.read_text() + "\n# edited\n")

    def test_it_begins_with_the_version_and_does_not_change_by_itself(self, id_now: Callable[..., str]) -> None:
        assert id_now().startswith("0.3.12-")
        assert id_now() == id_now()

    def test_the_lock_counts(self, id_now: Callable[..., str], tmp_path: Path) -> None:
        before = id_now()
        self.edit(tmp_path / "templates/locks/optillm-0.3.12-proxy.txt")
        assert id_now() != before

    def test_the_lock_of_another_profile_does_not(self, id_now: Callable[..., str], tmp_path: Path) -> None:
        before = id_now()
        self.edit(tmp_path / "templates/locks/optillm-0.3.12-full.txt")
        assert id_now() == before

    def test_the_profile_counts(self, id_now: Callable[..., str]) -> None:
        assert id_now(optillm={"profile": "full"}) != id_now()

    @pytest.mark.parametrize("name", ["serve.py", "__init__.py", "door.py"])
    def test_the_guard_counts(self, id_now: Callable[..., str], tmp_path: Path, name: str) -> None:
        before = id_now()
        self.edit(tmp_path / "guard" / name)
        assert id_now() != before

    def test_a_new_file_of_the_guard_counts(self, id_now: Callable[..., str], tmp_path: Path) -> None:
        before = id_now()
        (tmp_path / "guard/more.py").write_text("")
        assert id_now() != before

    def test_bytecode_of_the_guard_does_not(self, id_now: Callable[..., str], tmp_path: Path) -> None:
        before = id_now()
        (tmp_path / "guard/__pycache__").mkdir(exist_ok=True)
        (tmp_path / "guard/__pycache__/x.pyc").write_bytes(b"x")
        assert id_now() == before

    def test_a_plugin_counts_by_its_text(self, id_now: Callable[..., str], tmp_path: Path) -> None:
        plain, before = id_now(), id_now(plugins=["mine.py"])
        self.edit(tmp_path / "root/etc/optillm-proxy/mine.py")
        assert len({plain, before, id_now(plugins=["mine.py"])}) == 3

    def test_the_rest_of_the_configuration_does_not(self, id_now: Callable[..., str]) -> None:
        assert id_now(model="tom", strategies=["moa"], timeouts={"request": 5}) == id_now()

    def test_a_plugin_that_is_no_python_file_is_refused(self, id_now: Callable[..., str], tmp_path: Path) -> None:
        (tmp_path / "root/etc/optillm-proxy/mine.txt").write_text("")
        for name in ("mine.txt", "gone.py"):
            with pytest.raises(OptictlError, match="not a Python file"):
                id_now(plugins=[name])

    def test_a_version_without_a_lock_is_refused_with_those_there_are(self, id_now: Callable[..., str]) -> None:
        with pytest.raises(OptictlError, match=r"9\.9\.9") as caught:
            id_now(optillm={"version": "9.9.9"})
        assert "0.3.13" in caught.value.remedy
        assert "only for 0.3.12, 0.3.13" in caught.value.what
