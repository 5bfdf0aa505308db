"""Hosts for the fleet's tests: booted systemds in private networks, with a real sshd and Ansible.

A host has python3 and ssh and nothing else of use: the checkout, pip and every virtual environment
are out of its sight, and its network leads to this machine only. The upstream that stands for
LiteLLM listens on the host's own loopback.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optictl.proof.standin import StandIn
from testing import documented
from testing.kept import KEPT
from testing.load import Load, slow_upstream
from testing.machine import SSHD, Machine, install_packages, overlay, powered
from testing.support import PROXY_KEY, UPSTREAM_KEY, open_directory

PORT = 4020
PROGRAMS = Path(sys.executable).parent
#: Where a host would find what the hosts of the world do not have.
_HIDDEN = (
    "/opt",
    "/work",
    "/root",
    "/home",
    "/tmp",
    "/var/tmp",
    "/usr/local",
    "/var/cache",
    str(PROGRAMS.parent),
    "/usr/lib/python3/dist-packages/pip",
    "/usr/lib/python3.11/ensurepip",
)
_CLONE_NEWNET = 0x40000000


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def _free_block() -> int:
    """A number from 0 to 79 whose three networks are free here: fleets may run side by side."""
    taken = {
        (int(number) - 1) // 3
        for number in re.findall(r"inet 10\.213\.(\d+)\.", _ip("-o", "-4", "address"))
    }
    return next(
        block % 80 for block in range(os.getpid(), os.getpid() + 80) if block % 80 not in taken
    )


@contextmanager
def _inside(namespace: Path) -> Iterator[None]:
    """This thread, and threads that it starts, in another network; open sockets stay in theirs."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as here, namespace.open() as there:
        if libc.setns(there.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            libc.setns(here.fileno(), _CLONE_NEWNET)


@contextmanager
def _network(name: str, number: int) -> Iterator[tuple[Path, str]]:
    """A network namespace with a cable to this one and nowhere else: its path and its address."""
    outer, address = f"{name}o", f"10.213.{number}"
    _ip("netns", "add", name)
    try:
        _ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("address", "add", f"{address}.1/30", "dev", outer)
        _ip("link", "set", outer, "up")
        _ip("-n", name, "address", "add", f"{address}.2/30", "dev", "eth0")
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "link", "set", "eth0", "up")
        yield Path("/run/netns", name), f"{address}.2"
    finally:
        subprocess.run(["ip", "link", "delete", outer], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@dataclass
class Host:
    """One host; `power` holds the running machine."""

    name: str
    place: Path
    namespace: Path
    address: str
    upstream: StandIn
    machine: Machine
    power: ExitStack = field(default_factory=ExitStack)

    def boot(self) -> None:
        """Switch it on; returns when its sshd answers."""
        self.machine = self.power.enter_context(
            powered(self.place, f"--network-namespace-path={self.namespace}")
        )
        deadline = time.monotonic() + 30
        while True:
            with (
                suppress(OSError),
                socket.create_connection((self.address, 22), timeout=2) as connection,
            ):
                if connection.recv(4) == b"SSH-":
                    return
            assert time.monotonic() < deadline, f"{self.name}: no sshd"
            time.sleep(0.1)

    def cut(self) -> None:
        """Take the power away: nothing is written or said any more."""
        if self.machine.pid:  # 0 is this process's own group
            os.kill(self.machine.pid, signal.SIGKILL)
            self.machine.pid = 0
        self.power.close()

    def cable(self, state: str) -> None:
        """`down`: no host reaches it; `up`: as it was."""
        _ip("link", "set", f"{self.namespace.name}o", state)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This thread as a client on the host."""
        with _inside(self.namespace):
            yield

    @contextmanager
    def load(self) -> Iterator[Load]:
        """A load from a client on the host itself, as LiteLLM is one."""
        load = Load(PORT, PROXY_KEY, rate=10, clients=2)
        self.upstream.respond = slow_upstream
        try:
            with ExitStack() as stack:
                with self.inside():
                    stack.enter_context(load.running())
                yield load
        finally:
            self.upstream.respond = None


def documented_inventory() -> str:
    """What a new user is told to write."""
    begin = "cat > inventory.yml <<'END'\n"
    block = documented.block_with("docs/guides/fleet.md", "sh", begin)
    return block.partition(begin)[2].partition("END\n")[0]


@dataclass
class Fleet:
    """The hosts, and the controller's files: an inventory, a key, the known hosts."""

    hosts: list[Host]
    directory: Path

    @property
    def inventories(self) -> list[str]:
        """Ansible's options: the guide's inventory, with these hosts instead of its gateways."""
        return [
            "-i",
            str(self.directory / "inventory.yml"),
            "-i",
            str(self.directory / "hosts.json"),
        ]

    def describe(self, key: str = "key") -> None:
        """Write the inventories; `key` names the file with the ssh key."""
        (self.directory / "inventory.yml").write_text(documented_inventory())
        # a connection that is open from before would not need the key
        shared = "" if key == "key" else "-o ControlPath=none "
        arguments = (
            f"{shared}-o UserKnownHostsFile={self.directory}/known_hosts"
            " -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes"
        )
        common = {
            "ansible_ssh_private_key_file": str(self.directory / key),
            "ansible_ssh_common_args": (
                f"{arguments} -o ConnectTimeout=5 -o ServerAliveInterval=2 -o ServerAliveCountMax=3"
            ),
            "ansible_python_interpreter": "/usr/bin/python3",
            "optillm_proxy_key": PROXY_KEY,
        }
        hosts = {host.name: {"ansible_host": host.address} for host in self.hosts}
        (self.directory / "hosts.json").write_text(
            json.dumps({"all": {"vars": common, "hosts": hosts}})
        )

    def environment(self) -> dict[str, str]:
        """Ansible's own files go with the fleet; the wheels stay for the next session."""
        return {
            **os.environ,
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
            "ANSIBLE_HOME": str(self.directory / "ansible"),
            "XDG_CACHE_HOME": str(KEPT / "cache"),
            "LITELLM_KEY": UPSTREAM_KEY,
        }

    def ansible(self, module: str, arguments: str) -> subprocess.CompletedProcess[str]:
        """One module of Ansible's own on every host."""
        words = [str(PROGRAMS / "ansible"), *self.inventories, "all", "-m", module, "-a", arguments]
        return subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            env=self.environment(),
            check=False,
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        """`optictl fleet ...` in a separate session, with JSON on its stdout."""
        command = [
            str(PROGRAMS / "optictl"),
            "fleet",
            *words,
            *self.inventories,
            "--output",
            "json",
        ]
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(),
            start_new_session=True,
        )

    def optictl(self, *words: str, code: int = 0) -> dict[str, dict[str, Any]]:
        """Run `optictl fleet ...` to its end: host -> its result."""
        process = self.start(*words)
        try:
            out, err = process.communicate(timeout=420)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == code, f"{words} ended with {process.returncode}:\n{out}\n{err}"
        return {result["id"]: result for result in json.loads(out)["results"]}


def _key(path: Path) -> str:
    """Make a throwaway key, readable by its owner from the start: its public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text()


def _disk() -> Path:
    """In memory if there is plenty: a host takes 1.2 GB in 40,000 files, slow to delete on disk."""
    available = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    return Path("/dev/shm" if available and int(available.group(1)) > 12e6 else "/var/tmp")


@contextmanager
def _host(number: int, mark: int, authorized: str) -> Iterator[Host]:
    name = f"oct{mark}h{number}"
    hidden = sorted(
        {path for path in _HIDDEN if not any(path.startswith(f"{other}/") for other in _HIDDEN)}
    )
    with ExitStack() as stack:
        namespace, address = stack.enter_context(_network(name, mark * 3 + number))
        place = stack.enter_context(overlay(hidden, _disk()))
        root = place / "root"
        for program in (root / "usr/bin").glob("pip*"):
            program.unlink()
        (root / SSHD).symlink_to("/lib/systemd/system/ssh.service")
        (root / "root/.ssh").mkdir(mode=0o700)
        (root / "root/.ssh/authorized_keys").write_text(authorized)
        (root / "etc/hostname").write_text(f"gate{number}\n")
        with _inside(namespace):
            upstream = StandIn(key=UPSTREAM_KEY, port=4000)  # the network is the host's own
        stack.enter_context(upstream.running())
        host = Host(f"gate{number}", place, namespace, address, upstream, Machine(0, root))
        stack.callback(
            host.cut
        )  # nothing of it is wanted any more, and a shutdown waits for what is in flight
        host.boot()
        yield host


@contextmanager
def fleet_of(count: int) -> Iterator[Fleet]:
    """Boot hosts side by side, without optictl; all is gone when the block ends."""
    install_packages("sshd", "openssh-server")
    install_packages("ip", "iproute2")
    with open_directory() as directory, ExitStack() as stack, ThreadPoolExecutor(count) as pool:
        directory.chmod(0o700)
        public = _key(directory / "key")
        _key(directory / "wrong_key")
        mark = _free_block()
        coming = [_host(number, mark, public) for number in range(1, count + 1)]
        booting = [pool.submit(one.__enter__) for one in coming]
        try:
            for one, future in zip(coming, booting, strict=True):
                if future.exception() is None:
                    stack.push(one)
            hosts = [future.result() for future in booting]
            known = Path("/etc/ssh/ssh_host_ed25519_key.pub").read_text()
            (directory / "known_hosts").write_text(
                "".join(f"{host.address} {known}" for host in hosts)
            )
            fleet = Fleet(hosts, directory)
            fleet.describe()
            yield fleet
        finally:
            stack.close()
