"""Checks of the files on disk: provider file, ownership, release, working directory."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from optictl.checks.engine import Finding, Skip, check
from optictl.errors import MissingFact, NotApplicable, OptictlError
from optictl.facts.deployment import Deployment
from optictl.guard import invariants
from optictl.host import files
from optictl.host.files import FileFacts
from optictl.releases import build, integrity, store, verification


@check(
    "proxy-config.litellm-only",
    "The provider file names LiteLLM only",
    "one provider, the upstream, with the key from the environment",
    fault="The provider file does not name LiteLLM only",
    requires=("config.valid",),
    explained_by=("release.in-force",),
)
def proxy_config_litellm_only(deployment: Deployment) -> Iterator[Finding]:
    """LiteLLM is the only provider in the file of OptiLLM's proxy plugin.

    How: reads proxy_config.yaml as the plugin does and applies the guard's rules.
    Why: without the file OptiLLM uses its packaged example with public providers. With a broken
    file it uses no provider at all. Both answer 200.
    """
    path = deployment.proxy_config
    if deployment.hand_made is not None and deployment.hand_made.approach != "proxy":
        raise NotApplicable(f"OptiLLM reads {path} with --approach proxy only")
    for problem in invariants.proxy_config_problems(
        files.read(path), deployment.config.upstream.base_url
    ):
        yield Finding(f"{path} {problem}", "fail", deployment.restore, alone=deployment.is_alone)
    yield Finding(f"{path} names {deployment.config.upstream.base_url}")


def _modes(deployment: Deployment) -> list[tuple[Path, int, int, str]]:
    """(path, widest allowed mode, mode bits that the service needs, kind) of every judged path."""
    paths = deployment.paths
    if (service := deployment.hand_made) is not None:
        # the user of the service may own its files: only the rights of others are judged
        env_files = [(path, 0o640, 0, "file") for path in service.env_files]
        drop_ins = [(path, 0o644, 0, "file") for path, _ in service.drop_ins]
        return [*env_files, (service.path, 0o644, 0, "file"), *drop_ins]
    return [
        (paths.config, 0o644, 0, "file"),
        (paths.env, 0o600, 0, "file"),
        (paths.proxy_key, 0o600, 0, "file"),
        (paths.proxy_config, 0o644, 0o004, "file"),
        (paths.proxy_config.parent.resolve(), 0o755, 0o005, "directory"),
        (paths.service, 0o644, 0, "file"),
        (paths.socket, 0o644, 0, "file"),
        (paths.releases, 0o755, 0o005, "directory"),
        *((path.resolve(), 0o755, 0, "directory") for path in (paths.etc, paths.opt, paths.home)),
    ]


@check(
    "files.ownership",
    "Other users cannot read the secrets or change the service",
    "owned by root (or by you), with the mode of the installation or a stricter one",
    fault="Another user can read a secret or change what the service runs",
    explained_by=("unit.installed",),
)
def files_ownership(deployment: Deployment) -> Iterator[Finding]:
    """Every file of the deployment has the right owner and no wider mode than necessary.

    How: reads kind, owner and mode of the configuration, the secrets, the provider file, the units,
    the releases and their directories.
    Why: a user who can change one of these files can run code as the service. A user who can read a
    key can spend its tokens.
    """
    # a system deployment belongs to root; one below --root or of a user belongs to its creator
    owner = (
        0
        if deployment.paths.etc.parent == Path("/etc")
        else files.file_facts(deployment.paths.etc).uid
    )
    count = 0
    for path, mode, needed, kind in _modes(deployment):
        # a hand-made unit may be a link into a checkout: judge its target
        info = files.file_facts(path.resolve() if deployment.hand_made is not None else path)
        if info.kind == "missing":
            continue
        count += 1
        if info.kind != kind:
            remedy = _replace_wrong_kind(deployment, path)
            yield Finding(f"{path} is a {info.kind}, not a {kind}", "fail", remedy)
        else:
            yield from _access(deployment, path, info, owner, mode, needed)
    if not count:
        raise Skip(f"nothing is installed: run {deployment.install}")
    yield Finding(f"{count} paths have the right owner and mode")


def _replace_wrong_kind(deployment: Deployment, path: Path) -> str:
    """The command that puts a file or directory in the place of something else."""
    paths, at = deployment.paths, shlex.quote(str(path))
    if path in (paths.config, paths.env, paths.proxy_key):  # the operator's own
        return f"cp --remove-destination $(readlink -f {at}) {at}"
    return f"rm -r {at} && {deployment.install}"


def _access(
    deployment: Deployment, path: Path, info: FileFacts, owner: int, mode: int, needed: int
) -> Iterator[Finding]:
    """Who else can read or change the file. `needed`: what the service's user must be allowed."""
    at = shlex.quote(str(path))
    # only a service of the system manager runs as another user
    is_other_user = owner == 0 and deployment.paths.scope == "system"
    if info.uid != owner:
        yield Finding(
            f"{path} belongs to uid {info.uid}, not {owner}",
            "fail",
            f"chown {owner} {at}",
            alone=deployment.is_alone,
        )
    elif info.mode & ~mode:
        yield Finding(
            f"the mode of {path} is {info.mode:04o}, wider than {mode:04o}",
            "fail",
            f"chmod {mode:o} {at}",
            alone=deployment.is_alone,
        )
    elif is_other_user and info.mode & needed != needed:
        yield Finding(
            f"the service cannot read {path}: its mode is {info.mode:04o}",
            "fail",
            f"chmod {mode:o} {at}",
        )


@check(
    "release.in-force",
    "There is an active release",
    "the link `current` points to a complete release",
    fault="There is no active release",
)
def release_in_force(deployment: Deployment) -> Iterator[Finding]:
    """There is a complete release to start.

    How: follows the link `current` and looks for the release's release.json, which a build writes
    last.
    Why: an incomplete release or a dangling link does not stop the running service; it stops the
    next start.
    """
    deployment.require_managed()
    if store.active_release(deployment.paths) is None:
        yield Finding(
            f"{deployment.paths.current} does not point to a complete release",
            "fail",
            deployment.install,
        )
        return
    yield Finding(deployment.release.name)


def _rebuild(deployment: Deployment) -> str:
    """The command that rebuilds the active release next to the old one and switches to it."""
    # the installation restarts a service of systemd only
    return (
        deployment.install
        if deployment.supervised or not deployment.is_live
        else f"{deployment.install}; {deployment.restart}"
    )


@check(
    "release.pinned",
    "The release matches its lock file",
    "every distribution, version and file hash as installed",
    fault="The release does not match its lock file",
    timeout=60,
    requires=("config.valid", "release.in-force", "release.interpreter"),
)
def release_pinned(deployment: Deployment) -> Iterator[Finding]:
    """No distribution, version or file of the active release changed since its installation.

    How: compares the distributions and the digests of their file lists, the guard and the plugins
    with release.json. It also compares every file whose inode, size or times changed with its
    digest. `install` reads every file.
    Why: a dependency that drifted silently degrades strategies, and added code runs with the
    service's keys. The check does not protect against root, which can also change release.json.
    """
    record = deployment.release_record
    if record.optillm != deployment.config.optillm.version:
        yield Finding(
            f"OptiLLM {record.optillm} is active, "
            f"but {deployment.config.optillm.version} is configured",
            "fail",
            deployment.install,
        )
    # workdir.empty reports plugins
    for problem in integrity.integrity_problems(
        deployment.release, plugins=False, touched_only=True
    ):
        yield Finding(problem, "fail", _rebuild(deployment))
    yield Finding(
        f"{len(record.distributions)} distributions of {deployment.release.name} as installed"
    )


@check(
    "release.verified",
    "The guard's promises hold on this OptiLLM",
    "its texts are known to the guard, or a conformance run passed here",
    fault="The guard's promises may not hold on this OptiLLM",
    requires=("config.valid", "release.in-force"),
    explained_by=("release.pinned",),
)
def release_verified(deployment: Deployment) -> Iterator[Finding]:
    """The active release is verified, or conformant here.

    How: compares the texts of OptiLLM that the guard relies on with those of the versions that
    passed the guard's tests, and reads the outcome of the conformance run from release.json. It is
    skipped if neither can be read.
    Why: another OptiLLM may answer 200 without the strategy that a client asked for.
    """
    release, record = deployment.release, deployment.release_record
    verdict = verification.of(release, record, deployment.config.strategies)
    match verdict.state:
        case "verified":
            yield Finding("verified")
        case "conformant":
            yield Finding(f"conformant here: {verdict.reason}")
        case "refused":
            yield Finding(f"refused: {verdict.reason}", "fail", _other_release(deployment))
        case "unknown":
            raise Skip(verdict.reason)


def _other_release(deployment: Deployment) -> str:
    """The command that leads from a refused release to another one."""
    command = deployment.paths.command
    return command("rollback" if store.previous(deployment.paths) else "upgrade --list")


@check(
    "release.interpreter",
    "The Python of the release is available",
    "it runs and has the same minor version as at the build",
    fault="The Python of the release is no longer available",
    timeout=30,
    requires=("release.in-force",),
)
def release_interpreter(deployment: Deployment) -> Iterator[Finding]:
    """The interpreter of the release runs and has the version that the release was built for.

    How: asks the interpreter of the release's virtual environment for its version and compares it
    with release.json.
    Why: an upgrade of the system's Python may remove it. The running service continues, but its
    next start fails.
    """
    if problem := integrity.interpreter_problem(deployment.release):
        yield Finding(
            problem,
            "fail",
            _rebuild(deployment),
            "the next start of the service will fail",
        )
    python = deployment.release_record.python
    yield Finding(f"{python.path}, Python {python.version}")


@check(
    "release.bytecode",
    "The release has its bytecode",
    "every package has compiled bytecode",
    fault="The release is compiled at every start",
    requires=("release.in-force", "release.interpreter"),
    explained_by=("release.pinned",),
)
def release_bytecode(deployment: Deployment) -> Iterator[Finding]:
    """The bytecode that the installation compiled exists.

    How: looks in __pycache__ for the first file of every package of the release and of the guard.
    Why: the service may not write bytecode, so every start compiles everything again and takes
    seconds longer.
    """
    if bare := integrity.uncompiled(deployment.release):
        where = shlex.quote(str(deployment.release))
        python = f"{where}/.venv/bin/python -m compileall -q {where}/.venv/lib {where}/guard"
        yield Finding(f"not compiled: {integrity.a_few(bare)}", "fail", python)
    yield Finding("compiled")


@check(
    "release.starts",
    "The release starts and runs a strategy",
    "it serves now; or it starts on a free port, is locked, and runs one strategy",
    fault="The release does not start",
    timeout=120,
    requires=("config.valid", "release.in-force", "release.pinned"),
)
def release_starts(deployment: Deployment) -> Iterator[Finding]:
    """The active release can start and run a strategy.

    How: if the release serves now, that is the proof. Otherwise it is started on a free port
    against the embedded stand-in, must refuse requests without a key, and runs one strategy. No
    token is spent and LiteLLM is not called.
    Why: a program whose files are complete may still crash at its start.
    """
    if deployment.serving is not None:
        # a second process would compete with it for memory and CPU
        yield Finding(f"it serves now, as process {deployment.serving.pids}")
        return
    try:
        proof = build.prove(deployment.release, deployment.config)
    except MissingFact:
        raise
    except OptictlError as error:
        yield Finding(error.what, "fail", _rebuild(deployment), error.detail[-300:])
    else:
        yield Finding(f"{proof.strategy} ran with {proof.upstream_calls} upstream calls")


@check(
    "workdir.empty",
    "The working directory holds only configured plugins",
    "only the configured plugins, not writable by the service",
    fault="The service runs code that is not configured when it starts",
    requires=("config.valid", "release.in-force"),
    explained_by=("process.guarded",),
)
def workdir_empty(deployment: Deployment) -> Iterator[Finding]:
    """The working directory holds only the configured plugins, and the service cannot write there.

    How: lists optillm/ below the release's work directory and below that of each live process;
    reads owner and mode.
    Why: OptiLLM executes every ./optillm/plugins/*.py when it starts, no matter where the file came
    from.
    """
    configured = {f"optillm/plugins/{Path(name).name}" for name in deployment.config.plugins}
    directories = _work_directories(deployment)
    for directory, uid in directories.items():
        code = {
            str(p.relative_to(directory))
            for p in files.tree(directory / "optillm")
            if "__pycache__" not in p.parts
        }
        if extra := sorted(code - configured):
            unwanted = " ".join(shlex.quote(str(directory / name)) for name in extra)
            yield Finding(
                f"{directory} holds {', '.join(extra[:3])}",
                "fail",
                f"rm {unwanted} && {deployment.restart}",
                "OptiLLM executes ./optillm/plugins/*.py at start",
                deployment.is_alone,
            )
        info, at = files.file_facts(directory), shlex.quote(str(directory))
        if info.mode & 0o022 or (uid is not None and uid != os.geteuid() and info.uid == uid):
            yield Finding(
                f"the service or other users can write to the working directory {directory}",
                "fail",
                deployment.take_over or f"chown {os.geteuid()} {at} && chmod go-w {at}",
                "OptiLLM executes ./optillm/plugins/*.py at start",
            )
    yield Finding(", ".join(map(str, directories)))


def _work_directories(deployment: Deployment) -> dict[Path, int | None]:
    """The working directories of the live processes, with the user of each; else the next one's."""
    service = deployment.hand_made
    try:
        own = None if service is not None else deployment.release / "work"
        places = (
            (own if own and p.directory == files.identity(own) else p.cwd, p.uid)
            for p in deployment.live.processes
        )
        return {place: uid for place, uid in places if place is not None}
    except MissingFact:
        if service is None:
            return {deployment.release / "work": None}
        if service.directory is None:
            raise Skip("the unit names no working directory") from None
        return {service.directory: None}
