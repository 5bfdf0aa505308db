"""Which interpreter a release is built on, and what makes a release another one."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from optictl.deployment import paths, render
from optictl.deployment.config import Config
from optictl.errors import OptictlError
from optictl.host import uv
from optictl.host.files import closed_to_others
from optictl.host.uv import Interpreter
from optictl.releases import interpreters, locks
from optictl.releases.release_record import Python
from testing import release_records
from testing.support import open_directory

PATHS = paths.system(Path("/srv/gate"))
UV = Path("/home/jerry/my tools/uv")


def python(version: str, closed: str | None = None, unfit: str = "") -> Interpreter:
    major, minor, micro = (int(part) for part in version.split("."))
    return Interpreter(
        Path(f"/usr/bin/python{version}"),
        (major, minor, micro),
        Path(closed) if closed else None,
        unfit,
    )


class TestChoice:
    def test_the_newest_that_fits(self) -> None:
        best, passed = interpreters.choose_interpreter(
            [python("3.10.1"), python("3.12.4"), python("3.11.9")], True
        )
        assert best == python("3.12.4")
        assert passed == []

    @pytest.mark.parametrize("version", ["2.7.18", "3.9.19", "3.15.0", "4.0.0"])
    def test_not_one_without_wheels(self, version: str) -> None:
        best, passed = interpreters.choose_interpreter([python(version), python("3.10.1")], True)
        assert best == python("3.10.1")
        assert len(passed) == 1
        assert version in passed[0]
        assert uv.SUPPORTED in passed[0]

    def test_not_one_under_a_private_home(self) -> None:
        private = python("3.13.1", closed="/root")
        best, passed = interpreters.choose_interpreter(
            [private, python("3.11.2")], others_must_reach=True
        )
        assert best == python("3.11.2")
        assert passed == [f"{private}: the service user cannot enter /root"]

    def test_a_private_one_is_good_for_whoever_owns_it(self) -> None:
        private = python("3.13.1", closed="/home/jerry")
        assert interpreters.choose_interpreter(
            [private, python("3.11.2")], others_must_reach=False
        ) == (private, [])

    def test_none_that_fits(self) -> None:
        best, passed = interpreters.choose_interpreter(
            [python("3.9.1"), python("3.12.1", closed="/root")], True
        )
        assert best is None
        assert len(passed) == 2

    def test_none_at_all(self) -> None:
        assert interpreters.choose_interpreter([], True) == (None, [])

    def test_the_reason_is_the_true_one(self) -> None:
        found = [
            python("3.9.1", closed="/root"),
            python("3.15.2"),
            python("3.12.1", closed="/root"),
            python("3.11.2", unfit="it lacks the standard modules ssl"),
        ]
        best, passed = interpreters.choose_interpreter(found, others_must_reach=True)
        assert best is None
        assert passed == [
            f"/usr/bin/python3.15.2 (3.15.2): too new, the lock file is for Python {uv.SUPPORTED}",
            "/usr/bin/python3.12.1 (3.12.1): the service user cannot enter /root",
            "/usr/bin/python3.11.2 (3.11.2): it lacks the standard modules ssl",
            f"/usr/bin/python3.9.1 (3.9.1): too old, the lock file is for Python {uv.SUPPORTED}",
        ]


class TestChoose:
    @pytest.fixture(autouse=True)
    def machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(uv, "offered_by_apt", lambda: None)
        monkeypatch.setattr(uv, "program", lambda: UV)

    def test_which_were_passed_over_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            uv, "interpreters", lambda _: ([python("3.15.0"), python("3.11.2")], [])
        )
        said: list[str] = []
        assert interpreters.interpreter(PATHS, True, None, said.append) == python("3.11.2")
        assert len(said) == 1
        assert said[0].startswith("not using /usr/bin/python3.15.0")

    def test_no_interpreter_is_an_error_with_a_way_out(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(uv, "interpreters", lambda _: ([python("3.12.1", closed="/root")], []))
        with pytest.raises(OptictlError, match="this machine has none") as caught:
            interpreters.interpreter(PATHS, True, None, lambda _: None)
        assert caught.value.remedy == interpreters.choose(PATHS, True, None).remedy
        assert "/root" in caught.value.detail

    def test_the_interpreter_of_the_active_release_is_a_candidate(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        places = paths.system(tmp_path)
        release_records.write(places.current, python=Python("/gone/python3.12", "3.12.4"))
        asked: list[list[Path]] = []

        def seen(places: list[Path]) -> tuple[list[Interpreter], list[Path]]:
            asked.append(places)
            return [], list(places)

        monkeypatch.setattr(uv, "interpreters", seen)
        choice = interpreters.choose(places, True, None)
        assert asked == [[Path("/gone/python3.12")]]
        assert choice.passed_over == ["/gone/python3.12: it does not exist"]

    def test_a_chosen_one_is_the_only_candidate(self, tmp_path: Path) -> None:
        choice = interpreters.choose(PATHS, False, Path(sys.executable))
        assert choice.interpreter == uv.inspect(Path(sys.executable))
        broken = tmp_path / "python"
        broken.write_text("no program")
        assert interpreters.choose(PATHS, False, broken).passed_over == [
            f"{broken}: it does not run"
        ]

    def test_a_chosen_one_that_does_not_run_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(OptictlError, match=f"{tmp_path}/python is not suitable") as caught:
            interpreters.interpreter(PATHS, True, tmp_path / "python", lambda _: None)
        assert caught.value.remedy


class TestRemedy:
    """What is printed is run by a shell: its words are taken apart as one does."""

    @pytest.mark.parametrize("offered", [None, (3, 9), (3, 15)])
    def test_uv_installs_where_the_service_can_execute_it(
        self, offered: tuple[int, int] | None
    ) -> None:
        remedy = interpreters.interpreter_remedy("optictl install --root /srv", True, offered, UV)
        first, second = remedy.split(" && ")
        assert shlex.split(first) == [
            *(
                "sudo",
                "env",
                "UV_PYTHON_INSTALL_DIR=/opt/python",
                str(UV),
                "python",
                "install",
                "3.12",
            ),
        ]
        python = f"/opt/python/cpython-3.12-linux-{platform.machine()}-gnu/bin/python3.12"
        assert shlex.split(second) == ["optictl", "install", "--root", "/srv", "--python", python]

    def test_a_user_installs_for_himself(self) -> None:
        remedy = interpreters.interpreter_remedy("optictl install --user", False, None, UV)
        first, second = remedy.split(" && ")
        assert shlex.split(first) == [str(UV), "python", "install", "3.12"]
        assert second == "optictl install --user"

    def test_a_package_where_the_distribution_has_a_fitting_one(self) -> None:
        remedy = interpreters.interpreter_remedy("optictl install", True, (3, 13), UV)
        assert (
            remedy
            == "sudo apt-get install --yes python3 && optictl install --python /usr/bin/python3"
        )


class TestOfferedByApt:
    @pytest.fixture
    def says(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        """Put an apt-cache that prints this in front of the PATH."""

        def say(text: str) -> None:
            (tmp_path / "apt-cache").write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\n")
            (tmp_path / "apt-cache").chmod(0o755)
            monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

        return say

    def test_what_is_not_installed_is_offered(self, says: Callable[[str], None]) -> None:
        says("python3:\n  Installed: (none)\n  Candidate: 3.13.5-1\n  Version table:\n")
        assert uv.offered_by_apt() == (3, 13)

    @pytest.mark.parametrize(
        "text",
        [
            "python3:\n  Installed: 3.15.2-1\n  Candidate: 3.15.2-1\n",
            "python3:\n  Installed: (none)\n  Candidate: (none)\n",
            "",
        ],
    )
    def test_what_is_there_already_is_not(self, says: Callable[[str], None], text: str) -> None:
        says(text)
        assert uv.offered_by_apt() is None

    def test_without_apt_nothing_is(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert uv.offered_by_apt() is None


class TestCandidates:
    """uv is asked for real in tests/integration/install; here it lists nothing."""

    @pytest.fixture(autouse=True)
    def alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(uv, "_uv", lambda *_: "[]")
        monkeypatch.setattr(uv, "_SHARED", tmp_path / "opt-python")
        monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "mine"))

    def test_the_one_that_optictl_runs_on(self) -> None:
        seen, broken = uv.interpreters()
        assert [interpreter.path for interpreter in seen] == [
            Path(os.path.realpath(sys._base_executable))  # type: ignore[attr-defined]
        ]
        assert broken == []

    @pytest.mark.parametrize(
        "below",
        ["opt-python/3.12", "opt-python/cpython-3.12.4-linux-x86_64-gnu", "mine/cpython-3.12.4"],
    )
    def test_any_layout_of_the_shared_directories(self, below: str, tmp_path: Path) -> None:
        directory = tmp_path / below / "bin"
        directory.mkdir(parents=True)
        for name in ("python3.12", "python3.12-config", "python3", "pip3.12"):
            (directory / name).write_text("no program")
        assert uv.candidates([])[1:] == [directory / "python3.12"]

    def test_a_place_given_counts_once_however_it_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "python").symlink_to("elsewhere/python3.12")
        assert uv.candidates([tmp_path / "python", tmp_path / "elsewhere/python3.12"])[1:] == [
            tmp_path / "elsewhere/python3.12"
        ]

    def test_what_does_not_run_is_told(self, tmp_path: Path) -> None:
        assert uv.interpreters([tmp_path / "gone"])[1] == [tmp_path / "gone"]


class TestInspection:
    def test_a_venv_is_seen_through(self) -> None:
        """A release must not stand on a user's virtual environment."""
        seen = uv.inspect(Path(sys.executable))
        assert seen is not None
        assert seen.version == sys.version_info[:3]
        base_executable = sys._base_executable  # type: ignore[attr-defined]
        assert seen.path == Path(os.path.realpath(base_executable))

    @pytest.mark.parametrize(
        "text", ["#!/bin/sh\nexit 1\n", "#!/bin/sh\necho hello\n", "no program\n"]
    )
    def test_what_is_no_python_is_none(self, text: str, tmp_path: Path) -> None:
        program = tmp_path / "python"
        program.write_text(text)
        program.chmod(0o755)
        assert uv.inspect(program) is None

    def test_what_is_not_there_is_none(self, tmp_path: Path) -> None:
        assert uv.inspect(tmp_path / "python") is None

    @pytest.mark.parametrize(
        ("preamble", "unfit"),
        [
            (
                "sys.modules['ssl'] = sys.modules['ctypes'] = None",
                "it lacks the standard modules ctypes, ssl",
            ),
            ("sys.modules['json'] = None", "it lacks the standard modules json"),
            ("sys.implementation.name = 'pypy'", "it is pypy, not CPython"),
            (
                "sys.abiflags = 't'",
                "it is a free-threaded build, which the closure has no wheels for",
            ),
        ],
    )
    def test_what_a_release_cannot_run_on_says_why(
        self, preamble: str, unfit: str, tmp_path: Path
    ) -> None:
        """An interpreter that runs `preamble` first. Debian's python3-minimal is the first case."""
        program = tmp_path / "python"
        begin = shlex.quote(f"import sys; {preamble}\n")
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -c {begin}"$3"\n')
        program.chmod(0o755)
        seen = uv.inspect(program)
        assert seen is not None
        assert seen.unfit == unfit


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
        """Today's release id, with lock, guard and plugins in `tmp_path` for a test to edit."""
        templates = tmp_path / "templates"
        shutil.copytree(render.template_directory() / "locks", templates / "locks")
        shutil.copytree(locks.GUARD, tmp_path / "guard")
        monkeypatch.setattr(locks, "GUARD", tmp_path / "guard")
        monkeypatch.setattr(render, "template_directory", lambda: templates)
        places = paths.system(tmp_path / "root")
        places.etc.mkdir(parents=True)
        (places.etc / "mine.py").write_text('SLUG = "mine"\n')

        def now(**fields: object) -> str:
            return locks.required_release(Config(**fields), places).id  # type: ignore[arg-type]

        return now

    @staticmethod
    def edit(path: Path) -> None:
        path.write_text(path.read_text() + "\n# edited\n")

    def test_it_begins_with_the_version_and_does_not_change_by_itself(
        self, id_now: Callable[..., str]
    ) -> None:
        assert id_now().startswith("0.3.12-")
        assert id_now() == id_now()

    def test_the_lock_counts(self, id_now: Callable[..., str], tmp_path: Path) -> None:
        before = id_now()
        self.edit(tmp_path / "templates/locks/optillm-0.3.12-proxy.txt")
        assert id_now() != before

    def test_the_lock_of_another_profile_does_not(
        self, id_now: Callable[..., str], tmp_path: Path
    ) -> None:
        before = id_now()
        self.edit(tmp_path / "templates/locks/optillm-0.3.12-full.txt")
        assert id_now() == before

    def test_the_profile_counts(self, id_now: Callable[..., str]) -> None:
        assert id_now(optillm={"profile": "full"}) != id_now()

    @pytest.mark.parametrize("name", ["serve.py", "__init__.py", "app.py"])
    def test_the_guard_counts(self, id_now: Callable[..., str], tmp_path: Path, name: str) -> None:
        before = id_now()
        self.edit(tmp_path / "guard" / name)
        assert id_now() != before

    def test_a_new_file_of_the_guard_counts(
        self, id_now: Callable[..., str], tmp_path: Path
    ) -> None:
        before = id_now()
        (tmp_path / "guard/more.py").write_text("")
        assert id_now() != before

    def test_bytecode_of_the_guard_does_not(
        self, id_now: Callable[..., str], tmp_path: Path
    ) -> None:
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

    def test_a_plugin_that_is_no_python_file_is_refused(
        self, id_now: Callable[..., str], tmp_path: Path
    ) -> None:
        (tmp_path / "root/etc/optillm-proxy/mine.txt").write_text("")
        for name in ("mine.txt", "gone.py"):
            with pytest.raises(OptictlError, match="not a Python file"):
                id_now(plugins=[name])

    def test_a_version_without_a_lock_is_refused_with_those_there_are(
        self, id_now: Callable[..., str]
    ) -> None:
        with pytest.raises(OptictlError, match=r"9\.9\.9") as caught:
            id_now(optillm={"version": "9.9.9"})
        assert "0.4.0" in caught.value.remedy
        assert "only for 0.3.12, 0.3.13, 0.3.22, 0.4.0" in caught.value.what
