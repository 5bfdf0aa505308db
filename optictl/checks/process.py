"""Checks of the live processes, which listen on the service's port, however they were started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from optictl.checks.engine import Finding, check
from optictl.facts.deployment import Deployment
from optictl.guard import invariants
from optictl.host import files, processes
from optictl.proof.trial import GUARD_HEADER


@check(
    "bind.loopback",
    "Only this machine can reach the service",
    "every listening socket on 127.0.0.1",
    fault="Other machines can reach the service",
    live=True,
    requires=("config.valid", "socket.owner"),
    explained_by=("unit.matches", "unit.no-weakening-dropin", "process.guarded"),
)
def bind_loopback(deployment: Deployment) -> Iterator[Finding]:
    """The processes that serve the port listen on the loopback address only.

    How: reads /proc/net/tcp and tcp6, and looks at every listening socket of these processes, also
    on other ports.
    Why: the service is for LiteLLM on this machine. For other machines it would be a way around
    LiteLLM's limits.
    """
    live = deployment.live
    every = {socket.inode: socket for socket in processes.listeners()}
    # a process may also listen elsewhere: look at all its sockets
    pids = {p.pid for p in live.processes}
    held = {
        inode: pid
        for pid, inodes in processes.owners(set(every)).items()
        if pid in pids
        for inode in inodes
    }
    sockets = [every[inode] for inode in held] or live.listening
    for socket in sockets:
        address = f"{socket.address}:{socket.port}"
        if not invariants.is_loopback(socket.address):
            pid = held.get(socket.inode)
            remedy = deployment.rebuild if pid is None else deployment.without(pid)
            cause = "other machines can reach it"
            yield Finding(f"listens on {address}", "fail", remedy, cause, deployment.is_alone)
        elif socket.port != deployment.config.listen.port:
            remedy = deployment.without(held[socket.inode])
            yield Finding(f"also listens on {address}", "fail", remedy)
    yield Finding(", ".join(sorted({f"{s.address}:{s.port}" for s in sockets})))


@check(
    "process.non-root",
    "The service does not run as root",
    "a user other than root",
    fault="The service runs as root",
    live=True,
    requires=("config.valid", "socket.owner"),
    explained_by=("unit.matches", "unit.no-weakening-dropin", "process.guarded"),
)
def process_non_root(deployment: Deployment) -> Iterator[Finding]:
    """No process that serves the port runs as root.

    How: reads the owner of /proc/PID of each process.
    Why: some strategies run code that a model wrote; as root that code could do anything.
    """
    for process in deployment.live.processes:
        if process.uid == 0:
            yield Finding(
                f"process {process.pid} runs as root",
                "fail",
                deployment.rebuild,
                alone=deployment.is_alone,
            )
    yield Finding(f"uid {', '.join(sorted({str(p.uid) for p in deployment.live.processes}))}")


@check(
    "process.guarded",
    "The guard runs in front of OptiLLM",
    "the guard of the active release answers",
    fault="The port is served without the guard, or by the guard of another release",
    live=True,
    requires=("config.valid", "release.in-force", "health.alive"),
    explained_by=("unit.managed", "service.current-release", "unit.matches", "socket.owner"),
)
def process_guarded(deployment: Deployment) -> Iterator[Finding]:
    """The process that answers is the active release behind its guard.

    How: looks for the guard's header in the answer of /health, and at the working directory of each
    process.
    Why: OptiLLM without the guard answers 200 even if no strategy runs, and lets any prompt choose
    a strategy that runs code.
    """
    version = deployment.health.headers.get(GUARD_HEADER)
    if version is None:
        yield Finding(
            f"process {deployment.live.pids} answers without the guard",
            "fail",
            deployment.rebuild,
            "strategies may silently not run, and prompts may leave this machine",
        )
        return
    work = files.identity(deployment.release / "work")
    for process in deployment.live.processes:
        # the argument list names the link `current`, which may point elsewhere now;
        # the directory is exact
        if process.directory is not None and process.directory != work:
            yield Finding(f"process {process.pid} runs another release", "fail", deployment.restart)
    yield Finding(f"guard {version} of {deployment.release.name}")


#: Usage of the limit, as a fraction, from which on the check fails.
_NEAR = 0.8


@check(
    "process.descriptors",
    "The service has file descriptors left",
    f"at most {_NEAR:.0%} of the limit in use",
    fault="The service runs out of file descriptors",
    live=True,
    requires=("config.valid", "socket.owner"),
)
def process_descriptors(deployment: Deployment) -> Iterator[Finding]:
    """No process that serves the port is near its limit of open files.

    How: reads /proc/PID/fd and /proc/PID/limits of each process.
    Why: every request takes two descriptors. At the limit the process looks healthy, but accepts no
    connections.
    """
    most = 0
    for process in deployment.live.processes:
        used = processes.resource_use(process.pid)
        if used is None:
            raise PermissionError(13, "not readable", f"/proc/{process.pid}/fd")
        most = max(most, used.files)
        if used.files > _NEAR * used.files_limit:
            yield Finding(
                f"process {process.pid} has {used.files} of {used.files_limit} files open",
                "fail",
                deployment.restart,
                "clients hold connections open, or the process leaks files",
            )
    yield Finding(f"at most {most} in use")


@check(
    "proxy-config.in-force",
    "The live process reads the rendered provider file",
    "HOME leads to it, and it is not newer than the process",
    fault="The live process reads another provider file",
    live=True,
    requires=("config.valid", "socket.owner", "proxy-config.litellm-only"),
    explained_by=("unit.matches", "unit.no-weakening-dropin", "process.guarded"),
)
def proxy_config_in_force(deployment: Deployment) -> Iterator[Finding]:
    """The live process reads the provider file that proxy-config.litellm-only judges.

    How: looks at HOME in /proc/PID/environ, at the files that OptiLLM reads there, and at the start
    time of the process.
    Why: with another HOME, OptiLLM uses its packaged example with public providers, and prompts
    leave this machine.
    """
    rendered = deployment.proxy_config
    for process in deployment.live.processes:
        if process.environ is None:
            raise PermissionError(13, "not readable", f"/proc/{process.pid}/environ")
        home = process.environ.get("HOME")
        if home is None:
            yield Finding(f"process {process.pid} has no HOME", "fail", deployment.restart)
            continue
        directory = Path(home) / ".optillm"
        names = [directory / name for name in ("proxy_config.yaml", "proxy_config.yml")]
        path = next((p for p in names if files.file_facts(p).kind != "missing"), names[0])
        if path.resolve() != rendered.resolve():
            yield Finding(
                f"process {process.pid} reads {path}, not {rendered}",
                "fail",
                deployment.restart,
                alone=deployment.is_alone,
            )
        for problem in invariants.proxy_config_problems(
            files.read(path), deployment.config.upstream.base_url
        ):
            remedy = deployment.take_over or f"{deployment.install} && {deployment.restart}"
            yield Finding(f"{path} {problem}", "fail", remedy, alone=deployment.is_alone)
        changed = files.modified_at(path)
        # 2 s of tolerance: the boot time that start times are based on has whole seconds
        if changed and changed > processes.started_at(process.pid) + 2:
            yield Finding(
                f"{path} changed after process {process.pid} started", "warn", deployment.restart
            )
    yield Finding(f"{rendered}, read by process {deployment.live.pids}")
