"""The live process, found by the port it listens on, however it was started."""

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
    """Whatever serves the port listens on the loopback address and nowhere else.

    How: /proc/net/tcp and tcp6, and every socket of the processes that hold the port, another port's included.
    Why: the service is for LiteLLM on this machine; from elsewhere it is a way to a model without LiteLLM's limits.
    """
    live = deployment.live
    every = {one.inode: one for one in processes.listeners()}
    # a service may listen elsewhere too: look at all sockets of the processes that hold the port
    pids = {p.pid for p in live.processes}
    held = {
        inode: pid
        for pid, inodes in processes.owners(set(every)).items()
        if pid in pids
        for inode in inodes
    }
    sockets = [every[inode] for inode in held] or live.listening
    for one in sockets:
        if not invariants.is_loopback(one.address):
            remedy = (
                deployment.without(held[one.inode]) if one.inode in held else deployment.rebuild
            )
            cause = "other machines can reach it"
            yield Finding(
                f"listens on {one.address}:{one.port}", "fail", remedy, cause, deployment.is_alone
            )
        elif one.port != deployment.config.listen.port:
            yield Finding(
                f"also listens on {one.address}:{one.port}",
                "fail",
                deployment.without(held[one.inode]),
            )
    yield Finding(", ".join(sorted({f"{one.address}:{one.port}" for one in sockets})))


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
    """No process that serves the port belongs to root.

    How: the owner of /proc/PID of each of them.
    Why: some strategies run code that a model wrote; as root it could do anything.
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
    "The guard stands in front of OptiLLM",
    "the guard of the release in force answers",
    fault="Something without the guard serves the port, or the guard of another release",
    live=True,
    requires=("config.valid", "release.in-force", "health.alive"),
    explained_by=("unit.managed", "service.current-release", "unit.matches", "socket.owner"),
)
def process_guarded(deployment: Deployment) -> Iterator[Finding]:
    """The process that answers is the release in force behind its guard.

    How: the guard's header in the answer of /health, and the directory that each process works in.
    Why: a bare OptiLLM answers 200 while no strategy runs, and lets any prompt choose one that runs code.
    """
    version = deployment.health.headers.get(GUARD_HEADER)
    if version is None:
        yield Finding(
            f"process {deployment.live.pids} answers without the guard",
            "fail",
            deployment.rebuild,
            "a strategy may silently not run, and prompts may leave",
        )
        return
    work = files.identity(deployment.release / "work")
    for process in deployment.live.processes:
        # its argument list names the link `current`, which may have moved since; its directory cannot
        if process.directory is not None and process.directory != work:
            yield Finding(f"process {process.pid} runs another release", "fail", deployment.restart)
    yield Finding(f"guard {version} of {deployment.release.name}")


#: A part of a limit that is used up before one is told.
_NEAR = 0.8


@check(
    "process.descriptors",
    "The service can open more files",
    f"less than {_NEAR:.0%} of its limit in use",
    fault="The service runs out of file descriptors",
    live=True,
    requires=("config.valid", "socket.owner"),
)
def process_descriptors(deployment: Deployment) -> Iterator[Finding]:
    """No process that serves the port is near its limit of open files.

    How: /proc/PID/fd and /proc/PID/limits of each of them.
    Why: every request takes two, and at the limit no connection is taken any more, while the process seems well.
    """
    most = 0
    for process in deployment.live.processes:
        used = processes.resource_use(process.pid)
        if used is None:
            raise PermissionError(13, "not readable", f"/proc/{process.pid}/fd")
        most = max(most, used.files)
        if used.files > _NEAR * used.files_limit:
            found = (
                f"process {process.pid} has {used.files} files open, of at most {used.files_limit}"
            )
            yield Finding(
                found,
                "fail",
                deployment.restart,
                "clients hold connections, or files are left open",
            )
    yield Finding(f"at most {most} in use")


@check(
    "proxy-config.in-force",
    "The live process reads the provider file that was rendered",
    "its HOME leads to it, and it is not newer than the process",
    fault="The live process reads another provider file",
    live=True,
    requires=("config.valid", "socket.owner", "proxy-config.litellm-only"),
    explained_by=("unit.matches", "unit.no-weakening-dropin", "process.guarded"),
)
def proxy_config_in_force(deployment: Deployment) -> Iterator[Finding]:
    """The provider file that proxy-config.litellm-only judged is the one that the live process reads.

    How: HOME in /proc/PID/environ, the files that OptiLLM looks for there, and when the process was started.
    Why: with another HOME OptiLLM takes its packaged example, which names public providers: prompts would leave.
    """
    wanted = deployment.proxy_config
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
        if path.resolve() != wanted.resolve():
            yield Finding(
                f"process {process.pid} reads {path}, not {wanted}",
                "fail",
                deployment.restart,
                alone=deployment.is_alone,
            )
        for problem in invariants.proxy_config_problems(
            files.read(path), deployment.config.upstream.base_url
        ):
            remedy = deployment.take_over or f"{deployment.install} && {deployment.restart}"
            yield Finding(f"{path} {problem}", "fail", remedy, alone=deployment.is_alone)
        if (changed := files.modified_at(path)) and changed > processes.started_at(
            process.pid
        ) + 2:  # btime counts whole seconds
            yield Finding(
                f"{path} was changed after process {process.pid} had started",
                "warn",
                deployment.restart,
            )
    yield Finding(f"{wanted}, read by process {deployment.live.pids}")
