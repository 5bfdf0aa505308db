"""A real systemd to test on: an overlay of this machine's own root, booted by systemd-nspawn.

It boots in about three seconds, changes nothing outside its overlay, shares this machine's
network (so that the tests can put an upstream on a loopback port) and is powered off and
unmounted at the end, also when a test fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

#: What starts sshd at boot, below a root.
SSHD = "etc/systemd/system/multi-user.target.wants/ssh.service"


@dataclass
class Machine:
    """A booted machine. `pid` is its PID 1 as seen from here, `root` its file system."""

    pid: int
    root: Path

    def inside(self, *command: str | Path) -> list[str]:
        """The command that runs this one inside, as root."""
        return ["nsenter", "--target", str(self.pid), "--all", *map(str, command)]

    def run(
        self, *command: str | Path, check: bool = True, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root."""
        result = subprocess.run(
            self.inside(*command),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            cwd="/",
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for who waits here, not for what runs inside
        )
        if check and result.returncode:
            raise AssertionError(
                f"{command} ended with {result.returncode}:\n{result.stdout}\n{result.stderr}"
            )
        return result

    def spawn(self, *command: str | Path) -> subprocess.Popen[str]:
        """Start a command inside and go on."""
        return subprocess.Popen(
            self.inside(*command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            stdin=subprocess.DEVNULL,
        )

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", unit, f"--property={name}", "--value").stdout.strip()

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file inside."""
        # through the machine: files below a booted overlay must not be changed from outside
        subprocess.run(
            self.inside("sh", "-c", f"cat > {path} && chmod {mode:o} {path}"),
            input=text,
            text=True,
            check=True,
            cwd="/",
        )

    def read(self, path: str) -> str:
        return self.run("cat", path).stdout


def install_packages(program: str, package: str) -> None:
    """Have a program that comes as a separate Debian package."""
    if shutil.which(program, path=f"{os.defpath}:/usr/sbin") is None:
        subprocess.run(["apt-get", "update", "-q"], check=True, capture_output=True)
        subprocess.run(
            ["apt-get", "install", "-y", "-q", "--no-install-recommends", package],
            check=True,
            capture_output=True,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )


def _child(pid: int) -> int | None:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(text[0]) if text else None


@contextmanager
def _own_cgroups(name: str) -> Iterator[list[Path]]:
    """Cgroups of this name below this process's: nspawn would put two machines of one into one."""
    made = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "name=systemd":
            made.append(Path(f"/sys/fs/cgroup/systemd{path}", name))
        elif not controllers:
            mounted = "/unified" if Path("/sys/fs/cgroup/unified").is_dir() else ""
            made.append(Path(f"/sys/fs/cgroup{mounted}{path}", name))
    for directory in made:
        directory.mkdir()
    try:
        yield made
    finally:
        for directory in made:
            for below, _, _ in os.walk(directory, topdown=False):
                with suppress(
                    OSError
                ):  # the kernel has not done with it; it is empty and does no harm
                    Path(below).rmdir()


@contextmanager
def overlay(
    hidden: Sequence[str] = (), parent: Path = Path("/var/tmp"), lower: Path = Path("/")
) -> Iterator[Path]:
    """A directory with an overlay in `root`, for `powered`.

    It overlays this machine's root, or the tree that `lower` names. `hidden` directories are empty.
    """
    install_packages("systemd-nspawn", "systemd-container")
    place = Path(tempfile.mkdtemp(prefix="optictl-machine-", dir=parent))
    for name in ("up", "work", "root"):
        (place / name).mkdir()
    (place / "up").chmod(0o755)
    for path in filter(os.path.isdir, hidden):
        _hide(place / "up", Path(path))
    root = place / "root"
    # volatile: nothing of it outlives the test, so nothing has to reach the disk
    options = f"lowerdir={lower},upperdir={place / 'up'},workdir={place / 'work'},volatile"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(root)], check=True)
    try:
        (root / "usr/sbin/policy-rc.d").unlink(missing_ok=True)
        (root / SSHD).unlink(
            missing_ok=True
        )  # a machine on this one's network must not listen on it
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(root)], check=False, capture_output=True)
        shutil.rmtree(place, ignore_errors=True)


def _hide(upper: Path, path: Path) -> None:
    """Make an empty directory in the upper layer of an overlay, with the modes of those below."""
    for one in (*list(reversed(path.parents))[1:], path):
        made = upper / one.relative_to("/")
        made.mkdir(exist_ok=True)
        shutil.copystat(one, made)
    os.setxattr(upper / path.relative_to("/"), "trusted.overlay.opaque", b"y")


@contextmanager
def powered(place: Path, *options: str) -> Iterator[Machine]:
    """Boot what `overlay` made, with more options of systemd-nspawn; off when the block ends."""
    root = place / "root"
    process: subprocess.Popen[bytes] | None = None
    with _own_cgroups(place.name) as groups:
        try:
            with (place / "log").open("wb") as log:
                process = subprocess.Popen(
                    [
                        "sh",
                        "-c",
                        (
                            f"for one in {' '.join(map(str, groups))}; "
                            'do echo $$ >$one/cgroup.procs; done; exec "$@"'
                        ),
                        "sh",
                        "systemd-nspawn",
                        "--quiet",
                        "--register=no",
                        "--keep-unit",
                        "--directory",
                        str(root),
                        "--boot",
                        "--console=pipe",
                        "--capability=CAP_BPF,CAP_PERFMON,CAP_NET_ADMIN",
                        *options,
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    # IPAddressDeny= is made of BPF; nspawn's own filter would silently remove it
                    env={
                        **os.environ,
                        "SYSTEMD_SECCOMP": "0",
                        "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
                    },
                )
            yield _wait(process, root, place / "log")
        finally:
            if process is not None:
                if (pid := _child(process.pid) if process.poll() is None else None) is not None:
                    subprocess.run(
                        ["nsenter", "--target", str(pid), "--all", "systemctl", "poweroff"],
                        capture_output=True,
                        check=False,
                    )
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@contextmanager
def booted() -> Iterator[Machine]:
    """Boot a machine; it is gone when the block ends."""
    with overlay() as place, powered(place) as machine:
        yield machine


def _wait(process: subprocess.Popen[bytes], root: Path, log: Path) -> Machine:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(
                f"systemd-nspawn ended:\n{log.read_text(errors='replace')[-2000:]}"
            )
        if (pid := _child(process.pid)) is not None:
            machine = Machine(pid, root)
            state = machine.run("systemctl", "is-system-running", check=False).stdout.strip()
            if state in ("running", "degraded"):
                return machine
        time.sleep(0.2)
    raise AssertionError(f"the machine did not boot:\n{log.read_text(errors='replace')[-2000:]}")
