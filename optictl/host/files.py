"""Files: facts about them, and atomic writes."""

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

#: Longer than the clock tick of any file system. Nanoseconds.
_MOMENT = 2 * 10**9


_Kind = Literal["missing", "file", "directory", "link", "other"]
_KINDS: dict[int, _Kind] = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}


@dataclass(frozen=True)
class FileFacts:
    """What lstat() reports about a path. `mode`: permission bits. `size`: bytes.

    For "missing", every number is 0.
    """

    kind: _Kind
    mode: int = 0
    uid: int = 0
    size: int = 0
    gid: int = 0


def file_facts(path: Path) -> FileFacts:
    """Facts about the path itself: a symbolic link is not followed."""
    try:
        info = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return FileFacts("missing")
    kind = _KINDS.get(stat.S_IFMT(info.st_mode), "other")
    mode = stat.S_IMODE(info.st_mode)
    return FileFacts(kind, mode, info.st_uid, info.st_size, info.st_gid)


def identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of the file that a path leads to. None when there is none.

    Two paths with the same identity lead to the same file.
    """
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino


def read(path: Path) -> str | None:
    """The text of a file, decoded as UTF-8. None when there is no file.

    Raises:
        OSError: the file exists and cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_bytes(path: Path) -> bytes | None:
    """The bytes of a file. None when there is no file.

    Raises:
        OSError: the file exists and cannot be read.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def sync_directory(path: Path) -> None:
    """Write a directory to disk. Without this, a rename in it may be lost at a power failure."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def temporary(path: Path) -> Path:
    """The temporary file that `write` renames to `path`.

    The name is constant. A write that is killed therefore leaves at most one such file.
    """
    return path.with_name(f".{path.name}.new")


def write(path: Path, content: str | bytes, mode: int) -> None:
    """Replace a file atomically: write a new file, fsync, rename. Text is encoded as UTF-8.

    The new file has its final mode before it has any content.
    """
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
    """Keep a file under a second name next to it (a hard link), and return that name.

    The name is `path` with `suffix`, and a number when that name exists. `path` may then be
    replaced.
    """
    names = (f"{path.name}.{suffix}", *(f"{path.name}.{suffix}.{n}" for n in range(2, 1000)))
    aside = next(
        path.with_name(name) for name in names if file_facts(path.with_name(name)).kind == "missing"
    )
    os.link(path, aside, follow_symlinks=False)
    sync_directory(path.parent)
    return aside


def read_link(path: Path) -> str:
    """The target of a symbolic link, as the link names it."""
    return str(path.readlink())


def make_directory(path: Path, mode: int = 0o755) -> None:
    """Create a directory with this mode, and its missing parents with 0755.

    The umask is ignored.
    """
    for missing in reversed([p for p in (path, *path.parents) if not p.exists()]):
        missing.mkdir()
        missing.chmod(mode if missing == path else 0o755)


def replace_link(link: Path, target: Path) -> None:
    """Make `link` a symbolic link to `target`, atomically: a link exists at every moment."""
    new = temporary(link)
    remove(new)
    new.symlink_to(target)
    new.replace(link)
    sync_directory(link.parent)


def set_mode(path: Path, mode: int) -> None:
    """Set the permission bits of a file."""
    path.chmod(mode)


def set_owner(path: Path) -> None:
    """Make the caller the owner of a file. Its group stays the same."""
    os.chown(path, os.geteuid(), -1, follow_symlinks=False)


def set_owners(path: Path, uid: int, gid: int) -> None:
    """Set user and group of a file. Needs root unless they are the caller's."""
    if (path.stat().st_uid, path.stat().st_gid) != (uid, gid):
        os.chown(path, uid, gid, follow_symlinks=False)


def not_owned_by(directory: Path, uid: int) -> Iterator[Path]:
    """The paths in a tree, the directory itself included, that another user than `uid` owns.

    Links are not followed.
    """
    return (Path(path) for path in _all_of(directory) if os.lstat(path).st_uid != uid)


def _all_of(directory: Path) -> Iterator[str]:
    """The paths of a directory and everything below it. Links are not followed."""
    # strings: a release has thousands of files, and creating a Path takes longer than its lstat()
    below = (
        f"{root}/{name}"
        for root, directories, names in os.walk(directory)
        for name in (*directories, *names)
    )
    return itertools.chain([str(directory)], below)


def stamp(path: str) -> list[int] | None:
    """Inode, size in bytes, mtime and ctime in ns. None when there is no file.

    A file with an unchanged stamp was not changed: only the kernel's clock sets the ctime.
    """
    try:
        info = os.lstat(path)
    except OSError:
        return None
    return [info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns]


def settled(touched: int) -> bool:
    """Whether a change from now on gets another ctime than `touched`, the last ctime in ns.

    Two changes within one clock tick of the file system have the same ctime.
    """
    return time.time_ns() - touched > _MOMENT


def open_to_readers(directory: Path) -> None:
    """Let every user read a tree and enter its directories. Links are not followed."""
    for path in _all_of(directory):
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            continue
        opened = mode | 0o444 | (0o111 if stat.S_ISDIR(mode) or mode & stat.S_IXUSR else 0)
        if opened != mode:
            Path(path).chmod(stat.S_IMODE(opened))


def remove(path: Path) -> None:
    """Remove a file, a link or a whole tree. A missing path is not an error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            path.unlink()


def copy_tree(source: Path, target: Path) -> None:
    """Copy Python sources without __pycache__, readable by every user."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def copy(source: Path, target: Path) -> None:
    """Copy a file, readable by every user."""
    shutil.copyfile(source, target)
    target.chmod(0o644)


def sha256(path: Path) -> str:
    """The SHA-256 digest of a file, in hex.

    The digest is cached in this process for as long as device, inode, size, mtime and ctime stay
    the same.

    Raises:
        OSError: the file cannot be read.
    """
    info = path.stat()
    # a file that has just been written may change again without a new ctime
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
    """Every file below a directory, in a stable order. Links are not followed."""
    for root, directories, names in os.walk(directory):
        directories.sort()
        for name in sorted(names):
            yield Path(root) / name


def size(directory: Path) -> int:
    """The total size of the files below a directory, in bytes."""
    return sum(path.lstat().st_size for path in tree(directory))


@dataclass(frozen=True)
class FreeSpace:
    """Free space on a file system for users other than root."""

    bytes: int
    inodes: int


def free_space(path: Path) -> FreeSpace | None:
    """Free space on the file system of a path. None when the path does not exist."""
    try:
        space = os.statvfs(path)
    except OSError:
        return None
    # some file systems do not count inodes
    return FreeSpace(
        space.f_bavail * space.f_frsize, space.f_favail if space.f_files else sys.maxsize
    )


def forbids_programs(path: Path) -> str:
    """The mount option that prevents a release on the file system of a path.

    "read-only", "noexec", or "" when there is none.
    """
    flags = os.statvfs(path).f_flag
    return "read-only" if flags & os.ST_RDONLY else "noexec" if flags & os.ST_NOEXEC else ""


def mount_point(path: Path) -> Path:
    """The mount point of the file system of a path."""
    real = path.resolve()
    return next((part for part in (real, *real.parents) if os.path.ismount(part)), Path("/"))


@dataclass(frozen=True)
class Reader:
    """A user or group that may read a file. `id`: a uid or gid, None for all other users."""

    kind: Literal["user", "group", "others"]
    id: int | None = None

    def is_one_of(self, uids: Collection[int]) -> bool:
        """Whether this is one of these users."""
        return self.kind == "user" and self.id is not None and self.id in uids

    def __str__(self) -> str:
        return "every user" if self.kind == "others" else f"{self.kind} {self.id}"


#: The attribute with a file's access list: a version, then tag, permissions and id of each entry.
#: Sources: acl(5), xattr(7).
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
    """The users and groups that a POSIX access list lets read a file. Pure.

    `uid`, `gid`: the owner and group of the file.

    Raises:
        ValueError: the data is not an access list of version 2, the only version.
    """
    if len(data) < 4 or struct.unpack_from("<I", data)[0] != 2 or len(data) % 8 != 4:
        raise ValueError("the POSIX access list is not of version 2")
    entries = [struct.unpack_from("<HHI", data, at) for at in range(4, len(data), 8)]
    mask = next((allowed for tag, allowed, _ in entries if tag == _ACL_MASK), 7)
    readers = []
    for tag, allowed, id in entries:
        # the mask limits every entry except those of the owner and of all other users
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
        readers.append(named[tag])
    return readers


def readers(path: Path) -> list[Reader]:
    """The users and groups that may read a file or directory, by its mode and POSIX access list.

    root can always read it and is not listed.

    Raises:
        OSError: its mode or access list cannot be read.
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
    """The first part of these paths that other users cannot enter or read. None when they can."""
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
    """The first part of these paths that a user other than root may replace or change, or None."""
    for path in paths:
        for part in (*reversed(path.parents), path):
            info = part.lstat()
            if stat.S_ISLNK(info.st_mode):
                continue  # the loop has checked its directory; the caller passes the target too
            shared = (
                stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX
            )  # like /tmp: only the owner of a file there can replace it
            if info.st_uid != 0 or (info.st_mode & 0o022 and not shared):
                return part
    return None


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file. The kernel frees the lock when its holder dies.

    Raises:
        Locked: another process holds it. The message is what that process wrote into the file.
    """
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
    """A temporary directory below `parent` (default: /tmp). It is removed at the end."""
    if parent is not None:
        make_directory(parent)
    path = Path(tempfile.mkdtemp(prefix="optictl-", dir=parent))
    try:
        path.chmod(mode)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def modified_at(path: Path) -> float:
    """The mtime of a file, in seconds since the epoch. 0 when there is no file."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


@contextmanager
def appending(path: Path, mode: int = 0o600) -> Iterator[Callable[[str], None]]:
    """A function that appends a line to a file and writes it to disk before it returns.

    Creates a missing file with this mode. Drops a partial last line, which a killed writer left.

    Raises:
        Locked: another process appends to the file.
    """
    handle = os.open(
        path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, mode
    )
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Locked(f"another optictl writes to {path}") from None
        os.ftruncate(handle, path.read_bytes().rfind(b"\n") + 1)

        def append(line: str) -> None:
            data = (line + "\n").encode()
            # one write(): a killed process leaves a whole line or none, and a full disk a partial
            # one
            if os.write(handle, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(handle)

        yield append
    finally:
        os.close(handle)
