"""What is not as it was when a release was proven, on a small tree that looks like one."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import platform
import sys
from pathlib import Path

import pytest

from optictl.errors import OptictlError
from optictl.host import files
from optictl.releases import integrity
from optictl.releases.release_record import Python
from testing import release_records

NAMES = ("thing/__init__.py", "thing/core.py", "thing/data.bin")


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


class Tree:
    """A release of one distribution, whose files may be written to."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.site_packages = directory / ".venv/lib/python3.11/site-packages"
        (self.site_packages / "thing").mkdir(parents=True)
        (self.site_packages / "thing-1.0.dist-info").mkdir()
        (directory / ".venv/bin").mkdir()
        (directory / ".venv/bin/python").symlink_to(sys.executable)
        for name in NAMES:
            (self.site_packages / name).write_bytes(f"the content of {name}".encode())
        self.record = self.site_packages / "thing-1.0.dist-info/RECORD"
        lines = [
            f"{name},sha256={_digest((self.site_packages / name).read_bytes())},1" for name in NAMES
        ]
        self.record.write_text(
            "\n".join([*lines, "thing/__pycache__/core.pyc,,", "thing-1.0.dist-info/RECORD,,"])
            + "\n"
        )
        self.write_record()

    def write_record(self) -> None:
        release_records.write(
            self.directory,
            python=Python(sys.executable, platform.python_version()),
            distributions=integrity.distributions(self.directory / ".venv"),
        )

    def note(self) -> None:
        (self.directory / integrity.STAMPS).write_text(
            json.dumps(integrity.verified_stamps(self.directory / ".venv"))
        )

    def damage(self) -> list[str]:
        return integrity.integrity_problems(self.directory, touched_only=True)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    monkeypatch.setattr(files, "_MOMENT", 0)
    tree = Tree(tmp_path / "release")
    tree.note()
    return tree


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read for their digest."""
    names: list[str] = []
    whole = files.sha256

    def noted(path: Path) -> str:
        names.append(path.name)
        return whole(path)

    monkeypatch.setattr(files, "sha256", noted)
    return names


def test_an_untouched_release_is_not_read_again(tree: Tree, read: list[str]) -> None:
    assert tree.damage() == []
    assert read == ["RECORD"]
    read.clear()
    assert integrity.integrity_problems(tree.directory) == []
    assert sorted(read) == ["RECORD", "__init__.py", "core.py", "data.bin"]


def test_a_file_of_the_same_size_and_date_is_found_changed(tree: Tree) -> None:
    path = tree.site_packages / "thing/core.py"
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"core", b"kern"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert tree.damage() == ["changed since installation: thing/core.py"]


def test_so_is_one_that_another_was_renamed_to(tree: Tree) -> None:
    other = tree.site_packages / "other"
    other.write_text("something else")
    other.replace(tree.site_packages / "thing/data.bin")
    assert tree.damage() == ["changed since installation: thing/data.bin"]


def test_and_one_that_is_gone(tree: Tree) -> None:
    (tree.site_packages / "thing/data.bin").unlink()
    assert tree.damage() == ["changed since installation: thing/data.bin"]


def test_a_file_that_was_touched_and_is_the_same_is_no_damage(tree: Tree, read: list[str]) -> None:
    (tree.site_packages / "thing/core.py").touch()
    assert tree.damage() == []
    assert sorted(read) == ["RECORD", "core.py"]


def test_a_changed_list_of_files_is_found(tree: Tree) -> None:
    tree.record.write_text(tree.record.read_text().replace("thing/data.bin", "thing/gone.bin"))
    assert tree.damage() == ["the file list of thing was changed"]


@pytest.mark.parametrize("noted", [None, "", "nonsense", "[1, 2]", "null"])
def test_without_usable_stamps_every_file_is_read(
    tree: Tree, noted: str | None, read: list[str]
) -> None:
    stamps = tree.directory / integrity.STAMPS
    if noted is None:
        stamps.unlink()
    else:
        stamps.write_text(noted)
    assert tree.damage() == []
    assert len(read) == 1 + len(NAMES)


def test_a_file_written_a_moment_ago_is_read_every_time(
    tree: Tree, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_MOMENT", 3600 * 10**9)
    tree.note()
    read.clear()
    assert tree.damage() == []
    assert sorted(read) == ["RECORD", "__init__.py", "core.py", "data.bin"]


def test_bytecode_is_no_part_of_a_distribution(tree: Tree) -> None:
    """numpy 2.2.6 names one in its RECORD, with its digest from before it was compiled here."""
    (tree.site_packages / "thing/__pycache__").mkdir()
    (tree.site_packages / "thing/__pycache__/core.cpython-310.pyc").write_bytes(b"compiled here")
    line = f"thing/__pycache__/core.cpython-310.pyc,sha256={_digest(b'what the wheel brought')},1\n"
    tree.record.write_text(tree.record.read_text() + line)
    tree.write_record()
    tree.note()
    assert tree.damage() == []
    assert integrity.integrity_problems(tree.directory) == []


def test_nothing_is_noted_of_a_release_that_is_not_what_its_lists_say(tree: Tree) -> None:
    (tree.site_packages / "thing/core.py").write_text("not this")
    with pytest.raises(OptictlError, match=r"thing/core\.py"):
        tree.note()
