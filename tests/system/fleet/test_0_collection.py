"""The collection by Ansible's judges: `ansible-test sanity`, and ansible-lint for production."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from testing.kept import kept, kept_venv
from testing.support import ROOT

pytestmark = pytest.mark.slow

CORE, LINT, PIP = "2.19.14", "26.10.1", "24.2"
#: The collection has neither PowerShell nor a shell script, nor a changelog made of fragments; ruff
#: finds what pylint finds in a tenth of the time. The tests that run on several Pythons (`compile`,
#: `import`) take the system's.
LEFT_OUT = ("changelog", "pslint", "pylint", "shellcheck")
#: What ansible-test begins a virtual environment with, instead of a script that it would fetch.
_BEGIN = """\
import runpy, sys
sys.path.insert(0, {wheel!r})
sys.argv = ["pip", "install", "--quiet", "pip"]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def judges() -> Path:
    """The programs of a venv that is kept between sessions."""
    return (
        kept_venv(
            f"ansible-{CORE}-lint-{LINT}",
            f"ansible-core=={CORE}",
            f"ansible-lint=={LINT}",
            f"pip=={PIP}",
        )
        / "bin"
    )


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """A copy: both leave files behind. The directories above it are part of its name."""
    below = "ansible_collections/optictl/optillm"
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(
        shutil.copytree(ROOT / "optictl/collections" / below, tmp_path / below, ignore=ignored)
    )


def _judged(judges: Path, collection: Path, home: Path, *words: str) -> tuple[int, str]:
    """The exit code and all that one of the programs says of a collection."""
    environment = {
        "HOME": str(home),
        "PATH": f"{judges}:/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_COLLECTIONS_PATH": str(collection.parents[2]),
    }
    said = subprocess.run(
        [str(judges / words[0]), *words[1:]],
        cwd=collection,
        env=environment,
        check=False,
        timeout=300,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return said.returncode, said.stdout


def _home(judges: Path, collection: Path) -> Path:
    """A HOME with the virtual environments of ansible-test.

    It makes one for each test, with its own versions, and hands no variable of the environment on
    to pip. So the wheels are fetched first, as pip is set up here, and its pip has to take those.
    """

    def make(directory: Path) -> None:
        (package,) = judges.parent.glob("lib/python3*/site-packages/ansible_test")
        needed = sorted((package / "_data/requirements").glob("sanity.*.txt"))
        requirements = [
            word
            for path in needed
            if path.name.split(".")[1] not in LEFT_OUT
            for word in ("-r", str(path))
        ]
        wheels = directory / "wheels"
        subprocess.run(
            [
                str(judges / "python"),
                "-m",
                "pip",
                "download",
                "-q",
                "--disable-pip-version-check",
                "--no-deps",
                "--only-binary=:all:",
                "-d",
                str(wheels),
                f"pip=={PIP}",
                *requirements,
            ],
            check=True,
        )
        settings = directory / ".config/pip/pip.conf"
        begin = directory / f".ansible/test/cache/get_pip_{PIP.replace('.', '_')}.py"
        for path in (settings, begin):
            path.parent.mkdir(parents=True)
        settings.write_text(f"[global]\nno-index = true\nfind-links = {wheels}\n")
        (wheel,) = wheels.glob("pip-*.whl")
        begin.write_text(_BEGIN.format(wheel=str(wheel)))
        code, said = _judged(
            judges, collection, directory, "ansible-test", "sanity", "--prime-venvs", *_left_out()
        )
        assert code == 0, said

    return kept(f"ansible-test-{CORE}", make)


def _left_out() -> list[str]:
    return [word for name in LEFT_OUT for word in ("--skip-test", name)]


def test_sanity(judges: Path, collection: Path) -> None:
    home = _home(judges, collection)
    code, said = _judged(
        judges, collection, home, "ansible-test", "sanity", "--color", "no", *_left_out()
    )
    assert code == 0, said
    ran = set(re.findall(r'Running sanity test "([\w-]+)"', said))
    assert {"ansible-doc", "import", "pep8", "validate-modules", "yamllint"} < ran, said


def test_lint(judges: Path, collection: Path, tmp_path: Path) -> None:
    words = ("ansible-lint", "--offline", "--strict", "--nocolor", "--profile", "production")
    code, said = _judged(judges, collection, tmp_path, *words)
    assert code == 0, said
    assert "Profile 'production' was required, and it passed" in said
