"""Files: facts about them, and writes that are whole or did not happen."""

from __future__ import annotations

import errno
import fcntl
import functools
import hashlib
import itertools
import os
import shutil
import stat
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from optictl.errors import Locked

#: Longer than any file system's clock takes to its next tick; nanoseconds.
_MOMENT = 2 * 10**9


@dataclass(frozen=True)
class FileFacts:
    """What stands at a path. `mode` is the permission bits; all but `kind` are 0 for "missing"."""

    kind: Literal["missing", "file", "directory", "link", "other"]
    mode: int = 0
    uid: int = 0
    size: int = 0
    gid: int = 0


def file_facts(path: Path) -> FileFacts:
    """Facts about the path itself: a symbolic link is a link, whatever it points at."""
    try:
        info = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return FileFacts("missing")
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
    kind = kinds.get(stat.S_IFMT(info.st_mode), "other")
    return FileFacts(kind, stat.S_IMODE(info.st_mode), info.st_uid, info.st_size, info.st_gid)  # type: ignore[arg-type]


def identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of what a path leads to, or None: two paths with one identity are one thing."""
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino


def read(path: Path) -> str | None:
    """The file's text, or None where there is no file.

    Raises:
        OSError: it is there and cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_bytes(path: Path) -> bytes | None:
    """The file's bytes, or None where there is no file.

    Raises:
        OSError: it is there and cannot be read.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def sync_directory(path: Path) -> None:
    """A rename lasts only once its directory is on the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def temporary(path: Path) -> Path:
    """Where the text of `path` is before it is renamed to it. Always the same, so that a killed write leaves one at most."""
    return path.with_name(f".{path.name}.new")


def write(path: Path, content: str | bytes, mode: int) -> None:
    """Write-new, fsync, rename. The file has its final mode before it has any content. Text is written as UTF-8."""
    new = temporary(path)
    remove(new)
    handle = os.open(
        new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise
    sync_directory(path.parent)


def keep_aside(path: Path, suffix: str) -> Path:
    """Give what stands at a path a second name beside it, so that the first can be written over. Nothing is copied."""
    names = (f"{path.name}.{suffix}", *(f"{path.name}.{suffix}.{n}" for n in range(2, 1000)))
    aside = next(
        path.with_name(name) for name in names if file_facts(path.with_name(name)).kind == "missing"
    )
    os.link(path, aside, follow_symlinks=False)
    sync_directory(path.parent)
    return aside


def read_link(path: Path) -> str:
    """The target of a symbolic link as it is written there."""
    return str(path.readlink())


def make_directory(path: Path, mode: int = 0o755) -> None:
    """The directory and its missing parents; the umask does not count."""
    for missing in reversed([p for p in (path, *path.parents) if not p.exists()]):
        missing.mkdir()
        missing.chmod(mode if missing == path else 0o755)


def replace_link(link: Path, target: Path) -> None:
    """Make `link` a symbolic link to `target` in one step: at every moment there is one."""
    new = temporary(link)
    remove(new)
    new.symlink_to(target)
    new.replace(link)
    sync_directory(link.parent)


def set_mode(path: Path, mode: int) -> None:
    """Mend a file's permission bits."""
    path.chmod(mode)


def set_owner(path: Path) -> None:
    """Make a file the caller's own. Its group stays."""
    os.chown(path, os.geteuid(), -1, follow_symlinks=False)


def set_owners(path: Path, uid: int, gid: int) -> None:
    """Give a file to a user and a group; needs root where they are not the caller's."""
    if (path.stat().st_uid, path.stat().st_gid) != (uid, gid):
        os.chown(path, uid, gid, follow_symlinks=False)


def not_owned_by(directory: Path, uid: int) -> Iterator[Path]:
    """What does not belong to `uid`, of a directory and all that is below it; links are not followed."""
    return (Path(path) for path in _all_of(directory) if os.lstat(path).st_uid != uid)


def _all_of(directory: Path) -> Iterator[str]:
    """A directory and all that is below it; links are not followed."""
    # strings: a release has thousands of files, and a Path takes longer to make than its lstat
    below = (
        f"{root}/{name}"
        for root, directories, names in os.walk(directory)
        for name in (*directories, *names)
    )
    return itertools.chain([str(directory)], below)


def stamp(path: str) -> list[int] | None:
    """Inode, size in bytes, and the times of the last writing and of the last touch in ns; None where no file is seen.

    A file whose stamp is the one it had was not touched since: the last of the times only the clock sets.
    """
    try:
        info = os.lstat(path)
    except OSError:
        return None
    return [info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns]


def settled(touched: int) -> bool:
    """Whether a touch from now on shows in a file's times: it is no longer the very moment of the last one (ns)."""
    return time.time_ns() - touched > _MOMENT


def open_to_readers(directory: Path) -> None:
    """Let every user read a tree and enter its directories, whatever the umask was; links are not followed."""
    for path in _all_of(directory):
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            continue
        wanted = mode | 0o444 | (0o111 if stat.S_ISDIR(mode) or mode & stat.S_IXUSR else 0)
        if wanted != mode:
            Path(path).chmod(stat.S_IMODE(wanted))


def remove(path: Path) -> None:
    """Remove a file, a link or a whole tree; nothing there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            path.unlink()


def copy_tree(source: Path, target: Path) -> None:
    """Copy Python sources, readable by every user, without caches."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def copy(source: Path, target: Path) -> None:
    """Copy one file, readable by every user."""
    shutil.copyfile(source, target)
    target.chmod(0o644)


def sha256(path: Path) -> str:
    """The file's digest in hex. A file that was not touched since this process hashed it is not read again.

    Not touched: the same inode, size and times; the last of which (ctime) only the clock sets.

    Raises:
        OSError: it cannot be read.
    """
    info = path.stat()
    # what was written in this very moment may be written once more without its times telling
    known = _sha256 if settled(info.st_ctime_ns) else _sha256.__wrapped__
    return known(path, info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


@functools.cache
def _sha256(path: Path, *_: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:  # a release has thousands of small files
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def tree(directory: Path) -> Iterator[Path]:
    """Every file below a directory, links not followed, in a stable order."""
    for root, directories, names in os.walk(directory):
        directories.sort()
        for name in sorted(names):
            yield Path(root) / name


def size(directory: Path) -> int:
    """Bytes of all files below a directory."""
    return sum(path.lstat().st_size for path in tree(directory))


@dataclass(frozen=True)
class FreeSpace:
    """What is free for everybody on a file system."""

    bytes: int
    inodes: int


def free_space(path: Path) -> FreeSpace | None:
    """The room on the file system of a path; None where there is no such path."""
    try:
        space = os.statvfs(path)
    except OSError:
        return None
    # some file systems count no inodes
    return FreeSpace(
        space.f_bavail * space.f_frsize, space.f_favail if space.f_files else sys.maxsize
    )


def forbids_programs(path: Path) -> str:
    """How the file system of a path is mounted where no release can be put or run: "noexec", "read-only" or ""."""
    flags = os.statvfs(path).f_flag
    return "read-only" if flags & os.ST_RDONLY else "noexec" if flags & os.ST_NOEXEC else ""


def mount_point(path: Path) -> Path:
    """The directory at which the file system of a path is mounted."""
    real = path.resolve()
    return next((part for part in (real, *real.parents) if os.path.ismount(part)), Path("/"))


@dataclass(frozen=True)
class Reader:
    """One whom a file's mode or POSIX access list lets read it. `id` is a uid or gid, None for everybody else."""

    kind: Literal["user", "group", "others"]
    id: int | None = None

    def is_one_of(self, uids: Collection[int]) -> bool:
        return self.kind == "user" and self.id is not None and self.id in uids

    def __str__(self) -> str:
        return "every user" if self.kind == "others" else f"{self.kind} {self.id}"


#: The access list as the kernel hands it out: a version, then tag, permissions and id of each entry (acl(5), xattr(7)).
_ACL = "system.posix_acl_access"
_ACL_USER_OBJ, _ACL_USER, _ACL_GROUP_OBJ, _ACL_GROUP, _ACL_MASK, _ACL_OTHER = (
    0x01,
    0x02,
    0x04,
    0x08,
    0x10,
    0x20,
)
_READ = 4


def parse_access_list(data: bytes, uid: int, gid: int) -> list[Reader]:
    """The readers that a POSIX access list names; `uid` and `gid` own the file. Pure.

    Raises:
        ValueError: it is none of version 2, which is the only one there is.
    """
    if len(data) < 4 or struct.unpack_from("<I", data)[0] != 2 or len(data) % 8 != 4:
        raise ValueError("an access list of an unknown kind")
    entries = [struct.unpack_from("<HHI", data, at) for at in range(4, len(data), 8)]
    mask = next((allowed for tag, allowed, _ in entries if tag == _ACL_MASK), 7)
    found = []
    for tag, allowed, id in entries:
        # the mask bounds every entry but the owner's and everybody's
        effective = allowed if tag in (_ACL_USER_OBJ, _ACL_OTHER) else allowed & mask
        if tag == _ACL_MASK or not effective & _READ:
            continue
        named: dict[int, Reader] = {
            _ACL_USER_OBJ: Reader("user", uid),
            _ACL_USER: Reader("user", id),
            _ACL_GROUP_OBJ: Reader("group", gid),
            _ACL_GROUP: Reader("group", id),
            _ACL_OTHER: Reader("others"),
        }
        found.append(named[tag])
    return found


def readers(path: Path) -> list[Reader]:
    """Who can read a file or directory, by its mode and POSIX access list; root always can and is not listed.

    Raises:
        OSError: it cannot be looked at.
    """
    info = path.stat()
    try:
        return parse_access_list(os.getxattr(path, _ACL), info.st_uid, info.st_gid)
    except OSError as error:  # no access list, or a file system without them
        if error.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise
    by_mode = (
        (stat.S_IRUSR, Reader("user", info.st_uid)),
        (stat.S_IRGRP, Reader("group", info.st_gid)),
        (stat.S_IROTH, Reader("others")),
    )
    return [reader for bit, reader in by_mode if info.st_mode & bit]


def closed_to_others(paths: Iterable[Path]) -> Path | None:
    """The first part of these paths that another user may not enter or read, or None."""
    for path in paths:
        real = path.resolve()
        for part in (*reversed(real.parents), real):
            try:
                mode = part.stat().st_mode
            except OSError:
                return part
            needed = stat.S_IXOTH if part.is_dir() else stat.S_IROTH | stat.S_IXOTH
            if mode & needed != needed:
                return part
    return None


def changeable_by_others(paths: Iterable[Path]) -> Path | None:
    """The first part of these paths that somebody else than root may replace or change, or None."""
    for path in paths:
        for part in (*reversed(path.parents), path):
            info = part.lstat()
            if stat.S_ISLNK(info.st_mode):
                continue  # its directory was looked at; where it leads to is for the caller to name
            shared = (
                stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX
            )  # as /tmp: what lies there stays its owner's
            if info.st_uid != 0 or (info.st_mode & 0o022 and not shared):
                return part
    return None


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file, or raise Locked with what its holder wrote into it. A dead holder holds nothing."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Locked(
                os.read(handle, 200).decode(errors="replace").strip() or "another optictl"
            ) from None
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()}\n".encode())
        yield
    finally:
        os.close(handle)


@contextmanager
def scratch(mode: int = 0o755, parent: Path | None = None) -> Iterator[Path]:
    """A temporary directory below `parent` (/tmp), gone afterwards."""
    if parent is not None:
        make_directory(parent)
    path = Path(tempfile.mkdtemp(prefix="optictl-", dir=parent))
    try:
        path.chmod(mode)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def modified_at(path: Path) -> float:
    """When the file was last changed, in seconds since the epoch; 0 where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


@contextmanager
def appending(path: Path, mode: int = 0o600) -> Iterator[Callable[[str], None]]:
    """Add whole lines to a file, each on the disk before the next. One process at a time, or Locked.

    A last line that was torn when a writer was killed is dropped. The file is made where there is none.
    """
    handle = os.open(
        path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, mode
    )
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Locked(f"another optictl writes into {path}") from None
        os.ftruncate(handle, path.read_bytes().rfind(b"\n") + 1)

        def append(line: str) -> None:
            data = (line + "\n").encode()
            # one write: whoever is killed leaves the line whole, or none, or on a full disk a torn one
            if os.write(handle, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(handle)

        yield append
    finally:
        os.close(handle)
