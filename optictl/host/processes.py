"""Processes: facts about them from /proc, and services that optictl starts itself."""

from __future__ import annotations

import os
import pwd
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

from optictl.host import files

_LISTEN = "0A"
NOBODY = 65534


@dataclass(frozen=True)
class Listener:
    """A listening TCP socket. `inode`: its number in /proc/PID/fd."""

    address: str
    port: int
    inode: str


@dataclass(frozen=True)
class Process:
    """A running process. `environ` is None when this user may not read it.

    `directory`: device and inode of its working directory. The path `cwd` may mean another
    directory here when the process has its own mount namespace.
    """

    pid: int
    uid: int
    argv: tuple[str, ...]
    cwd: Path | None
    directory: tuple[int, int] | None
    environ: dict[str, str] | None
    executable: Path | None


def _address(text: str) -> str:
    """`0100007F` -> `127.0.0.1`. /proc/net/tcp has each 32-bit word in the machine's byte order."""
    words = [text[i : i + 8] for i in range(0, len(text), 8)]
    packed = b"".join(struct.pack("=I", int(word, 16)) for word in words)
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def listeners() -> list[Listener]:
    """Every listening TCP socket of this network namespace."""
    sockets = []
    for table in ("tcp", "tcp6"):
        for line in (files.read(Path("/proc/net") / table) or "").splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN:
                address, port = fields[1].rsplit(":", 1)
                sockets.append(Listener(_address(address), int(port, 16), fields[9]))
    return sockets


def sockets_of(pid: int) -> set[str]:
    """The inodes of the sockets that a process has open. Empty when this user may not read them."""
    inodes = set()
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                target = str(Path(entry.path).readlink())
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    return inodes


def owners(inodes: set[str]) -> dict[int, set[str]]:
    """The processes that have these sockets open: pid -> inodes. Only those this user may read.

    systemd and the managers of users are omitted: they keep the sockets that they pass to services.
    """
    holders = {}
    for entry in os.scandir("/proc"):
        pid = int(entry.name) if entry.name.isdigit() else 1
        if pid != 1 and (held := sockets_of(pid) & inodes) and not _is_manager(pid):
            holders[pid] = held
    return holders


#: Programs of systemd that hold sockets for a service. A service that is about to start is one of
#: them for some milliseconds, as root.
_MANAGERS = ("systemd", "systemd-executor")


def _is_manager(pid: int) -> bool:
    """Whether a process is systemd itself, or a service of it that has not become its program."""
    if executable := _link(f"/proc/{pid}/exe"):
        # the kernel adds this to the path after an update of systemd
        return executable.name.removesuffix(" (deleted)") in _MANAGERS
    try:
        comm = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return False
    return comm in [name[:15] for name in _MANAGERS]  # another user's process


def _link(path: str) -> Path | None:
    try:
        return Path(path).readlink()
    except OSError:
        return None


def read_process(pid: int) -> Process | None:
    """Facts about a process. None when it has ended."""
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
        uid = Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None
    environ = None
    with suppress(OSError):
        pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        environ = dict(os.fsdecode(p).split("=", 1) for p in pairs if b"=" in p)
    cwd = Path(f"/proc/{pid}/cwd")
    words = tuple(os.fsdecode(a) for a in argv)
    return Process(
        pid, uid, words, _link(str(cwd)), files.identity(cwd), environ, _link(f"/proc/{pid}/exe")
    )


@dataclass(frozen=True)
class Identity:
    """The user and group of a service that optictl starts. None for both means the caller."""

    uid: int | None = None
    gid: int | None = None


def service_identity(name: str) -> Identity:
    """The identity for a service that this caller starts. It is never root.

    When root calls, it is the user `name`, or `nobody` when that user does not exist.
    """
    if os.geteuid() != 0:
        return Identity()
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return Identity(NOBODY, NOBODY)
    return Identity(entry.pw_uid, entry.pw_gid)


def _death_with_parent() -> Callable[[], object]:
    """A function for a child to call at its start. The child then ends with this process."""
    # not at the top: a unit with MemoryDenyWriteExecute= cannot import ctypes. Not in the child:
    # it runs as another user already, which may not read this interpreter's modules
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(1, signal.SIGTERM)


def start(
    command: Sequence[str],
    environment: dict[str, str],
    cwd: Path,
    output: IO[bytes] | None,
    identity: Identity,
) -> subprocess.Popen[bytes]:
    """Start a service with exactly this environment, in a new session: Ctrl-C does not reach it."""
    user: dict[str, Any] = {}
    if identity.uid is not None:
        user = {"user": identity.uid, "group": identity.gid, "extra_groups": []}
    return subprocess.Popen(
        command,
        env=environment,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        start_new_session=True,
        preexec_fn=_death_with_parent(),  # the service must not outlive an optictl that is killed
        **user,
    )


def stop(process: subprocess.Popen[bytes], seconds: float) -> int:
    """End a service with SIGTERM, and its whole session with SIGKILL after `seconds`.

    Returns the exit code.
    """
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return process.returncode


@contextmanager
def credentials(
    secrets: Mapping[str, bytes], identity: Identity, parent: Path | None = None
) -> Iterator[Path]:
    """A directory of files (name -> content) that only the service may read.

    It replaces the directory that systemd creates for LoadCredential=.
    """
    with files.scratch(0o700, parent) as directory:
        for name, content in secrets.items():
            files.write(directory / name, content, 0o400)
        if identity.uid is not None and identity.gid is not None:
            for name in secrets:
                os.chown(directory / name, identity.uid, identity.gid)
            os.chown(directory, identity.uid, identity.gid)
        yield directory


def service_of(pid: int) -> str | None:
    """The system service that a process belongs to. None for the process of a session or a user."""
    parts = _cgroup(pid)
    return (
        parts[-1]
        if parts[-1].endswith(".service") and not any(p.startswith("user@") for p in parts)
        else None
    )


def own_service_of(pid: int) -> str | None:
    """The user service of the caller that a process belongs to. None when it belongs to none."""
    parts = _cgroup(pid)
    return (
        parts[-1]
        if parts[-1].endswith(".service") and f"user@{os.getuid()}.service" in parts[:-1]
        else None
    )


def _cgroup(pid: int) -> list[str]:
    """The parts of the control group path of a process. One empty part when it has ended."""
    try:
        path = Path(f"/proc/{pid}/cgroup").read_text().splitlines()[-1].rpartition(":")[2]
    except (OSError, IndexError):
        return [""]
    return path.split("/")


def started_at(pid: int) -> float:
    """The start time of a process, in seconds since the epoch, with 0.01 s resolution.

    Infinity when the process has ended.
    """
    try:
        # the program's name may contain blanks; starttime is the 20th field after it (proc(5))
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return float("inf")
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return booted + ticks / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class ResourceUse:
    """What a process uses: open files, their limit, and memory.

    `memory`: bytes that no file backs. The kernel cannot drop them.
    """

    files: int
    files_limit: int
    memory: int


def resource_use(pid: int) -> ResourceUse | None:
    """What a process uses. None when it has ended, or this user may not read it."""
    try:
        held = sum(1 for _ in os.scandir(f"/proc/{pid}/fd"))
        limits = Path(f"/proc/{pid}/limits").read_text()
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    limit = re.search(r"^Max open files\s+(\d+)", limits, re.M)
    own = re.findall(r"^(?:RssAnon|RssShmem|VmSwap):\s+(\d+) kB", status, re.M)
    return ResourceUse(held, int(limit[1]) if limit else sys.maxsize, 1024 * sum(map(int, own)))


def readable_as(uid: int, path: Path) -> bool:
    """Whether another user can read a file. A process of that user tries it. Needs root."""
    command = ["/bin/cat", str(path)]
    return (
        subprocess.run(
            command, user=uid, group=uid, extra_groups=[], capture_output=True, check=False
        ).returncode
        == 0
    )


class TerminatedBySignal(KeyboardInterrupt):
    """A signal asks this program to end, as Ctrl-C does. `code`: the exit code, 128 + N."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.code = 128 + number


@contextmanager
def raise_on_signals() -> Iterator[None]:
    """Raise `TerminatedBySignal` for SIGINT, SIGTERM and SIGHUP within the block.

    Cleanup code then runs. SIGHUP means that the terminal was closed.
    """

    def raise_error(number: int, _frame: FrameType | None) -> None:
        raise TerminatedBySignal(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # signals that the caller ignores stay ignored: nohup, a shell's background job
    handled = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, raise_error) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
