"""Files are written whole or not at all, with their mode, and one optictl works at a time."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from optictl.host import files


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture(params=[0o022, 0o077, 0o000], ids=["umask 022", "umask 077", "umask 000"])
def any_umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


class TestWrite:
    @pytest.mark.parametrize("wanted", [0o644, 0o600, 0o400])
    def test_text_and_mode_whatever_the_umask(
        self, tmp_path: Path, any_umask: int, wanted: int
    ) -> None:
        target = tmp_path / "file"
        files.write(target, "ä text\n", wanted)
        assert target.read_text(encoding="utf-8") == "ä text\n"
        assert mode(target) == wanted

    def test_a_secret_is_never_readable_by_others_not_even_for_a_moment(
        self, tmp_path: Path, any_umask: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[tuple[int, int]] = []
        real = os.fsync

        def look(handle: int) -> None:
            info = os.fstat(handle)
            if stat.S_ISREG(info.st_mode):
                seen.append((stat.S_IMODE(info.st_mode), info.st_size))
            real(handle)

        chmod = os.fchmod

        def before_the_mode(handle: int, wanted: int) -> None:
            info = os.fstat(handle)
            assert info.st_size == 0
            assert stat.S_IMODE(info.st_mode) == 0o600
            chmod(handle, wanted)

        monkeypatch.setattr(os, "fsync", look)
        monkeypatch.setattr(os, "fchmod", before_the_mode)
        files.write(tmp_path / "key", "secret\n", 0o600)
        assert seen == [(0o600, 7)]

    def test_an_old_file_is_replaced_with_its_mode(self, tmp_path: Path) -> None:
        target = tmp_path / "file"
        target.write_text("a much longer old text\n")
        target.chmod(0o666)
        files.write(target, "new\n", 0o600)
        assert (target.read_text(), mode(target)) == ("new\n", 0o600)

    def test_who_reads_the_old_file_reads_it_to_its_end(self, tmp_path: Path) -> None:
        target = tmp_path / "file"
        target.write_text("old\n")
        with target.open() as reader:
            files.write(target, "new\n", 0o644)
            assert reader.read() == "old\n"

    @pytest.mark.parametrize("old", ["old\n", None], ids=["replacing", "creating"])
    @pytest.mark.parametrize("broken", ["fsync", "fchmod", "replace"])
    def test_a_failure_leaves_the_old_file_and_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, old: str | None
    ) -> None:
        target = tmp_path / "file"
        if old is not None:
            target.write_text(old)

        def fail(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(
            *((Path, "replace", fail) if broken == "replace" else (os, broken, fail))
        )
        with pytest.raises(OSError, match="No space left"):
            files.write(target, "new\n", 0o644)
        assert {p.name: p.read_text() for p in tmp_path.iterdir()} == (
            {} if old is None else {"file": old}
        )

    def test_an_interruption_leaves_the_old_file_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target = tmp_path / "file"
        target.write_text("old\n")

        def interrupt(_: int) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            files.write(target, "new\n", 0o644)
        assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"file": "old\n"}

    def test_the_directory_is_synced_after_the_rename(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        order: list[str] = []
        real_fsync, real_replace = os.fsync, Path.replace

        def fsync(handle: int) -> None:
            order.append("directory" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
            real_fsync(handle)

        def rename(self: Path, target: Path) -> Path:
            order.append("rename")
            return real_replace(self, target)

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(Path, "replace", rename)
        files.write(tmp_path / "file", "new\n", 0o644)
        assert order == ["file", "rename", "directory"]

    def test_a_link_is_replaced_and_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").write_text("not mine\n")
        (tmp_path / "file").symlink_to("elsewhere")
        files.write(tmp_path / "file", "new\n", 0o644)
        assert (tmp_path / "elsewhere").read_text() == "not mine\n"
        assert not (tmp_path / "file").is_symlink()


class TestPoint:
    def test_a_new_link(self, tmp_path: Path) -> None:
        files.replace_link(tmp_path / "current", Path("releases/a"))
        assert (tmp_path / "current").readlink() == Path("releases/a")

    def test_another_target_in_one_step(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        link = tmp_path / "current"
        files.replace_link(link, Path("releases/a"))
        real = Path.replace

        def watched(self: Path, target: Path) -> Path:
            assert link.readlink() == Path("releases/a")
            return real(self, target)

        monkeypatch.setattr(Path, "replace", watched)
        files.replace_link(link, Path("releases/b"))
        assert link.readlink() == Path("releases/b")
        assert [p.name for p in tmp_path.iterdir()] == ["current"]

    def test_what_an_interrupted_switch_left_behind_is_no_obstacle(self, tmp_path: Path) -> None:
        (tmp_path / ".current.new").symlink_to("gone")
        files.replace_link(tmp_path / "current", Path("releases/a"))
        assert [p.name for p in tmp_path.iterdir()] == ["current"]

    def test_a_directory_in_its_place_is_not_taken_away(self, tmp_path: Path) -> None:
        (tmp_path / "current").mkdir()
        (tmp_path / "current/file").write_text("")
        with pytest.raises(OSError):
            files.replace_link(tmp_path / "current", Path("releases/a"))
        assert (tmp_path / "current/file").exists()


class TestExclusive:
    def test_it_can_be_had_again_and_again(self, tmp_path: Path) -> None:
        for _ in range(2):
            with files.exclusive(tmp_path / "lock"):
                assert (tmp_path / "lock").exists()


class TestTrees:
    def test_a_copy_is_readable_by_every_user(self, tmp_path: Path, any_umask: int) -> None:
        source = tmp_path / "source"
        (source / "inner/__pycache__").mkdir(parents=True)
        for name in ("a.py", "inner/b.py", "inner/__pycache__/b.pyc"):
            (source / name).write_text(name)
            (source / name).chmod(0o600)
        (source / "inner").chmod(0o700)
        source.chmod(0o700)
        files.copy_tree(source, tmp_path / "copy")
        found = {
            str(p.relative_to(tmp_path)): mode(p)
            for p in (tmp_path / "copy", *(tmp_path / "copy").rglob("*"))
        }
        assert found == {
            "copy": 0o755,
            "copy/a.py": 0o644,
            "copy/inner": 0o755,
            "copy/inner/b.py": 0o644,
        }

    def test_a_tree_is_opened_to_readers_and_to_nobody_else(
        self, tmp_path: Path, any_umask: int
    ) -> None:
        place = tmp_path / "place"
        (place / "inner").mkdir(parents=True)
        for name in ("inner/text", "inner/program"):
            (place / name).write_text(name)
        outside = tmp_path / "outside"
        outside.write_text("a secret")
        (place / "link").symlink_to(outside)
        for path, before in (
            (outside, 0o600),
            (place / "inner/text", 0o600),
            (place / "inner/program", 0o700),
        ):
            path.chmod(before)
        for path in (place / "inner", place):
            path.chmod(0o700)
        files.open_to_readers(place)
        found = {
            p.name: mode(p) for p in (place, place / "inner", *(place / "inner").iterdir(), outside)
        }
        assert found == {
            "place": 0o755,
            "inner": 0o755,
            "text": 0o644,
            "program": 0o755,
            "outside": 0o600,
        }

    def test_a_copied_file_is_readable_by_every_user(self, tmp_path: Path, any_umask: int) -> None:
        (tmp_path / "a").write_text("x")
        (tmp_path / "a").chmod(0o600)
        files.copy(tmp_path / "a", tmp_path / "b")
        assert mode(tmp_path / "b") == 0o644

    def test_directories_are_made_whatever_the_umask(self, tmp_path: Path, any_umask: int) -> None:
        files.make_directory(tmp_path / "a/b/c", 0o700)
        assert [mode(tmp_path / name) for name in ("a", "a/b", "a/b/c")] == [0o755, 0o755, 0o700]

    def test_a_directory_that_is_there_keeps_its_mode(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir(mode=0o700)
        files.make_directory(tmp_path / "a")
        assert mode(tmp_path / "a") == 0o700

    def test_removing_a_link_leaves_what_it_points_at(self, tmp_path: Path) -> None:
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree/file").write_text("")
        (tmp_path / "link").symlink_to("tree")
        files.remove(tmp_path / "link")
        assert (tmp_path / "tree/file").exists()
        files.remove(tmp_path / "tree")
        files.remove(tmp_path / "tree")
        assert list(tmp_path.iterdir()) == []


class TestFacts:
    def test_each_kind(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("abc")
        (tmp_path / "file").chmod(0o640)
        (tmp_path / "link").symlink_to("gone")
        os.mkfifo(tmp_path / "pipe")
        assert files.file_facts(tmp_path / "file") == files.FileFacts("file", 0o640, os.getuid(), 3)
        assert files.file_facts(tmp_path).kind == "directory"
        assert files.file_facts(tmp_path / "link").kind == "link"
        assert files.file_facts(tmp_path / "pipe").kind == "other"
        assert files.file_facts(tmp_path / "gone") == files.FileFacts("missing")
        assert files.file_facts(tmp_path / "file/below") == files.FileFacts("missing")

    def test_a_missing_text_is_none(self, tmp_path: Path) -> None:
        assert files.read(tmp_path / "gone") is None
        assert files.read(tmp_path / "gone/below") is None

    def test_bytes_that_are_no_text_do_not_stop_a_reader(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"a\xffb")
        assert files.read(tmp_path / "file") == "a�b"


class TestDigest:
    def test_only_a_file_that_nobody_touched_is_not_read_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "file"
        file.write_text("old")
        os.utime(file, (1, 1))
        hits = files._sha256.cache_info().hits
        first = files.sha256(file)
        assert files.sha256(file) == first == hashlib.sha256(b"old").hexdigest()
        assert (
            files._sha256.cache_info().hits == hits
        )  # it was written just now, whatever its time says
        time.sleep(0.1)
        monkeypatch.setattr(files, "_MOMENT", 10**7)
        assert files.sha256(file) == first
        assert files.sha256(file) == first
        assert files._sha256.cache_info().hits == hits + 1
        time.sleep(0.1)
        file.write_text("new")
        os.utime(file, (1, 1))
        time.sleep(0.1)
        assert files.sha256(file) == hashlib.sha256(b"new").hexdigest()


def access_list(*entries: tuple[int, int, int], version: int = 2) -> bytes:
    """A POSIX access list as the kernel hands it out: tag, permissions, id."""
    return struct.pack("<I", version) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NONE = 0xFFFFFFFF


class TestReaders:
    def test_the_group_bits_of_a_file_with_an_access_list_are_its_mask(self) -> None:
        """A credential of systemd 257: mode 0440, and still no group can read it."""
        owner, service, group = (1, 4, NONE), (2, 4, 63318), (4, 0, NONE)
        data = access_list(owner, service, group, (16, 4, NONE), (32, 0, NONE))
        assert files.parse_access_list(data, 0, 0) == [
            files.Reader("user", 0),
            files.Reader("user", 63318),
        ]

    def test_whom_an_access_list_names_within_its_mask(self) -> None:
        named = [(2, 5, 1000), (4, 4, NONE), (8, 4, 55), (32, 4, NONE)]
        data = access_list((1, 7, NONE), *named, (16, 5, NONE))
        readers = files.parse_access_list(data, 0, 7)
        told = [str(reader) for reader in readers]
        assert told == ["user 0", "user 1000", "group 7", "group 55", "every user"]
        masked = access_list((1, 7, NONE), *named, (16, 1, NONE))
        assert [str(r) for r in files.parse_access_list(masked, 0, 7)] == ["user 0", "every user"]

    @pytest.mark.parametrize("data", [b"", b"\x02", access_list(version=3), access_list() + b"\0"])
    def test_another_kind_of_list_is_no_list(self, data: bytes) -> None:
        with pytest.raises(ValueError, match="not of version 2"):
            files.parse_access_list(data, 0, 0)

    @pytest.mark.parametrize(
        ("mode", "more"),
        [(0o600, []), (0o640, ["group"]), (0o604, ["others"]), (0o644, ["group", "others"])],
    )
    def test_without_a_list_the_mode_tells(
        self, mode: int, more: list[str], tmp_path: Path
    ) -> None:
        file = tmp_path / "key"
        file.touch()
        file.chmod(mode)
        assert [reader.kind for reader in files.readers(file)] == ["user", *more]

    def test_one_of(self) -> None:
        assert files.Reader("user", 5).is_one_of({0, 5})
        assert not files.Reader("user", 6).is_one_of({0, 5})
        assert not files.Reader("group", 0).is_one_of({0})
        assert not files.Reader("others").is_one_of({0})
