"""Escape attempts inside the service's sandbox, and actions that must work there.

`optictl check --attack` runs this in a copy of the service's unit. It prints one JSON object per
attempt: {"id", "title", "must": "fail"|"work", "happened", "detail"}.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

#: Returns what the attempt reached, or raises an exception.
Attempt = Callable[[], object]
_ATTEMPTS: list[tuple[str, str, str, Attempt]] = []


def _attempt(id: str, title: str, must: str) -> Callable[[Attempt], Attempt]:
    def register(function: Attempt) -> Attempt:
        _ATTEMPTS.append((id, title, must, function))
        return function

    return register


def _refuse(id: str, title: str) -> Callable[[Attempt], Attempt]:
    return _attempt(id, title, "fail")


def _allow(id: str, title: str) -> Callable[[Attempt], Attempt]:
    return _attempt(id, title, "work")


def _names(directory: str) -> list[str]:
    return [path.name for path in Path(directory).iterdir()]


@_refuse("bind", "listen on a port")
def _bind() -> object:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        return listener.getsockname()


@_refuse("bind-unix", "listen on a Unix socket")
def _bind_unix() -> object:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("/tmp/attack.sock")  # noqa: S108
        return listener.getsockname()


@_refuse("connect-outside", "connect to another machine")
def _connect_outside() -> object:
    # TEST-NET-1: the address is unused; the local firewall must refuse the packet
    with socket.socket() as client:
        client.settimeout(2)
        client.connect(("192.0.2.1", 80))
        return client.getsockname()


@_refuse("connect-ipv6", "open an IPv6 socket")
def _connect_ipv6() -> object:
    return socket.socket(socket.AF_INET6).fileno()


@_refuse("packet-socket", "open a raw socket")
def _packet_socket() -> object:
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW).fileno()


@_refuse("shadow", "read /etc/shadow")
def _shadow() -> object:
    return Path("/etc/shadow").read_bytes()


@_refuse("homes", "list homes")
def _homes() -> object:
    found = [name for place in ("/root", "/home") if Path(place).is_dir() for name in _names(place)]
    if not found:
        raise PermissionError("no entries")
    return found


@_refuse("secrets-on-disk", "read the operator's secret files")
def _secrets() -> object:
    return [Path("/etc/optillm-proxy", name).read_bytes() for name in ("env", "proxy_key")]


def _write(*places: str) -> object:
    written = []
    for place in places:
        try:
            Path(place, "attack").write_text("x")
        except OSError:
            continue
        written.append(place)
        Path(place, "attack").unlink()
    if not written:
        raise PermissionError("no directory is writable")
    return written


@_refuse("write", "write outside its private /tmp")
def _write_outside() -> object:
    return _write(
        "/etc",
        "/usr",
        "/opt",
        "/run",
        "/var/lib/optillm-proxy",
        "/var/lib/optillm-proxy/.optillm",
        "/root",
        "/home",
        str(Path.cwd()),
    )


@_refuse("write-and-execute", "write and execute a file")
def _write_and_execute() -> object:
    program = Path("/tmp/attack")  # noqa: S108
    program.write_text("#!/bin/true\n")
    program.chmod(0o755)
    return subprocess.run([program], check=True)


@_refuse("writable-code", "map memory as writable and executable")
def _writable_code() -> object:
    return len(mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC))


@_refuse("other-processes", "see other processes")
def _other_processes() -> object:
    own = {str(os.getpid()), str(os.getppid())}
    seen = [
        name
        for name in _names("/proc")
        if name.isdigit() and name not in own and Path("/proc", name, "cmdline").exists()
    ]
    if not seen:
        raise PermissionError("only its own processes")
    return seen


@_refuse("devices", "see a disk")
def _devices() -> object:
    seen = [name for name in _names("/dev") if name.startswith(("sd", "vd", "nvme", "mem", "kmsg"))]
    if not seen:
        raise PermissionError("none")
    return seen


@_refuse("become-root", "become root")
def _become_root() -> object:
    os.setuid(0)
    return os.getuid()


@_refuse("capabilities", "hold a capability")
def _capabilities() -> object:
    lines = Path("/proc/self/status").read_text().splitlines()
    sets = {
        line.split()[0]: int(line.split()[1], 16)
        for line in lines
        if line.startswith(("CapEff", "CapPrm", "CapBnd"))
    }
    if not any(sets.values()):
        raise PermissionError("none")
    return sets


@_refuse("namespaces", "make a namespace")
def _namespaces() -> object:
    if ctypes.CDLL(None, use_errno=True).unshare(0x10000000):
        raise OSError(ctypes.get_errno(), "unshare")
    return True


@_refuse("mount", "mount a file system")
def _mount() -> object:
    if ctypes.CDLL(None, use_errno=True).mount(b"none", b"/tmp", b"tmpfs", 0, None):
        raise OSError(ctypes.get_errno(), "mount")
    return True


@_refuse("environment", "find the upstream key in the environment")
def _environment() -> object:
    if b"OPENAI_API_KEY=" not in Path("/proc/self/environ").read_bytes():
        raise PermissionError("not in the environment")
    return True


@_allow("credentials", "read its own credentials")
def _credentials() -> object:
    directory = Path(os.environ["CREDENTIALS_DIRECTORY"])
    return [len((directory / name).read_bytes()) for name in ("proxy_key", "upstream_env")]


@_allow("private-tmp", "write to its private /tmp")
def _private_tmp() -> object:
    return _write("/tmp")  # noqa: S108


@_allow("provider-file", "read its provider file")
def _provider_file() -> object:
    return len((Path.home() / ".optillm" / "proxy_config.yaml").read_bytes())


@_allow("import", "import OptiLLM")
def _import() -> object:
    import optillm

    return optillm.__version__


@_allow("upstream", "reach the upstream")
def _upstream() -> object:
    way, address = sys.argv[1].split(":", 1)
    if way == "unix":
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(address)
            return address
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), 5) as client:
        return client.getpeername()


def main() -> int:
    """Run all attempts. Returns 0 when each has the expected outcome."""
    unexpected = 0
    for id, title, must, attempt in _ATTEMPTS:
        try:
            detail, happened = repr(attempt())[:200], "work"
        except Exception as error:
            detail, happened = f"{type(error).__name__}: {error}"[:200], "fail"
        unexpected += happened != must
        print(
            json.dumps(
                {"id": id, "title": title, "must": must, "happened": happened, "detail": detail}
            ),
            flush=True,
        )
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
