"""The package for Debian, built and installed on a clean Debian 13 that has no network."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import optictl
from scripts import completions, deb
from testing.machine import overlay
from testing.systems.trees import PACKAGES, tree

pytestmark = [pytest.mark.slow, pytest.mark.root]

SUITE, PYTHON = "trixie", "3.13"
PACKAGE = f"optictl_{optictl.__version__}_amd64.deb"
#: What dpkg does with python3 when it is upgraded: the trigger on its path.
TRIGGER = "dpkg-trigger --by-package=python3-minimal /usr/bin/python3 && dpkg --configure --pending"
#: Runs its first argument in the tree that the second one names.
ENTER = 'mount --rbind /dev "$2/dev" && mount -t proc proc "$2/proc" && exec chroot "$2" sh -c "$1"'


class Debian:
    """A tree in which commands run without a network, with /dev and its own /proc."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, command: str, check: bool = True) -> str:
        """The output of a shell command inside, as root; both streams."""
        inside = ["unshare", "--net", "--pid", "--fork", "--mount", "sh", "-c", ENTER, "sh"]
        done = subprocess.run(
            [*inside, command, str(self.root)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"},
        )
        assert not check or done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package for one Python, out of this checkout."""
    return deb.build(tmp_path_factory.mktemp("deb"), "amd64", [PYTHON])


@pytest.fixture(scope="module")
def debian(package: Path) -> Iterator[Debian]:
    """A clean Debian on which the package is installed."""
    assert "python3" in PACKAGES
    with overlay(lower=tree(SUITE)) as place:
        system = Debian(place / "root")
        (system.root / PACKAGE).write_bytes(package.read_bytes())
        system.run(f"dpkg --install /{PACKAGE}")
        yield system


def test_it_is_installed_as_a_whole(debian: Debian) -> None:
    status = debian.run("dpkg-query --show --showformat '${Status} ${Version}' optictl")
    assert status == f"install ok installed {optictl.__version__}"
    assert debian.run("dpkg --audit") == ""
    assert debian.run("dpkg --verify optictl") == ""


def test_the_program_runs_for_everyone_and_brings_its_uv(debian: Debian) -> None:
    said = debian.run("su nobody -s /bin/sh -c 'optictl --version'")
    assert said.startswith(f"optictl {optictl.__version__}\n")
    assert f"Python  {PYTHON}." in said
    assert "(/opt/optictl/venv/bin/python" in said
    assert "ExecStart=" in debian.run("su nobody -s /bin/sh -c 'optictl render-unit'")
    assert debian.run("/opt/optictl/venv/bin/uv --version").startswith("uv ")


def test_messages_spell_the_command_as_it_is_typed(debian: Debian) -> None:
    said = json.loads(debian.run("optictl start --output json 2>/dev/null", check=False))
    assert said["error"]["remedy"] == "optictl run"


def test_man_pages_and_completion_are_where_shells_look(debian: Debian) -> None:
    for page in ("man1/optictl.1", "man5/optictl.yaml.5"):
        text = debian.run(f"gunzip --stdout /usr/share/man/{page}.gz")
        assert text == (deb.ROOT / "man" / page.partition("/")[2]).read_text()
    script = "/usr/share/bash-completion/completions/optictl"
    ask = f". {script}; COMP_WORDS=(optictl rol); COMP_CWORD=1; _optictl_completion optictl"
    assert debian.run(f"bash -c '{ask}; echo ${{COMPREPLY[@]}}'").split() == ["rollback"]
    for path in completions.PLACES.values():
        assert (debian.root / "usr/share" / path).stat().st_mode & 0o777 == 0o644


def test_nothing_of_it_can_be_changed_by_users(debian: Debian) -> None:
    assert debian.run("find /opt/optictl ! -type l \\( ! -user root -o -perm /022 \\)") == ""


def test_another_python3_makes_the_environment_again(debian: Debian) -> None:
    venv = debian.root / "opt/optictl/venv"
    made = (venv / "lock").stat().st_mtime_ns
    debian.run(TRIGGER)
    assert (venv / "lock").stat().st_mtime_ns == made  # the same Python: nothing to do
    debian.run("sed -i s/^3/2/ /opt/optictl/venv/lock")
    debian.run(TRIGGER)
    assert (venv / "lock").stat().st_mtime_ns != made
    assert debian.run("optictl --version").startswith("optictl ")


def test_a_python_without_wheels_is_named(debian: Debian) -> None:
    debian.run("mv /opt/optictl/locks/3.13.txt /opt/optictl/locks/3.9.txt")
    said = debian.run("/usr/bin/python3 -I /opt/optictl/make_venv.py", check=False)
    debian.run("mv /opt/optictl/locks/3.9.txt /opt/optictl/locks/3.13.txt")
    assert said.startswith("optictl: this package is for Python 3.9; python3 is 3.13\n")
    assert "Traceback" not in said


def test_removal_leaves_nothing(debian: Debian) -> None:
    """The last one: it ends the module's installation."""
    debian.run("dpkg --remove optictl")
    left = debian.run(
        "find / -xdev -name '*optictl*' ! -path '/var/lib/dpkg/*' ! -path '/var/log/*'"
    )
    assert left == f"/{PACKAGE}\n"


def test_two_builds_are_the_same(package: Path, tmp_path: Path) -> None:
    again = deb.build(tmp_path, "amd64", [PYTHON])
    assert again.read_bytes() == package.read_bytes()


def test_the_package_names_no_host_but_the_project(package: Path) -> None:
    fields = subprocess.run(
        ["dpkg-deb", "--field", str(package)], capture_output=True, text=True, check=True
    ).stdout
    assert re.findall(r"https?://[^/\s]+", fields) == ["https://example.com"]
    assert package.stat().st_size < 60_000_000
