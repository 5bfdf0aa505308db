"""Files on disk: the provider configuration, ownership, the release."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from optictl.checks.engine import Finding, Skip, check
from optictl.errors import MissingFact, OptictlError
from optictl.facts.deployment import Deployment
from optictl.guard import invariants
from optictl.host import files
from optictl.releases import build, integrity, store


@check(
    "proxy-config.litellm-only",
    "The provider file names LiteLLM and nothing else",
    "one provider, the upstream, key from the environment",
    fault="The provider file does not name LiteLLM alone",
    requires=("config.valid",),
    explained_by=("release.in-force",),
)
def proxy_config_litellm_only(deployment: Deployment) -> Iterator[Finding]:
    """The file from which OptiLLM's proxy plugin takes its providers names LiteLLM alone.

    How: proxy_config.yaml is read as the plugin reads it and judged by the guard's own rule.
    Why: without the file OptiLLM uses its packaged example with public providers, with a broken one none at all; both
    answer 200.
    """
    path = deployment.proxy_config
    if deployment.hand_made is not None and deployment.hand_made.approach != "proxy":
        raise Skip(f"OptiLLM reads {path} under --approach proxy only")
    for problem in invariants.proxy_config_problems(
        files.read(path), deployment.config.upstream.base_url
    ):
        yield Finding(f"{path} {problem}", "fail", deployment.restore, alone=deployment.is_alone)
    yield Finding(f"{path} names {deployment.config.upstream.base_url}")


def _modes(deployment: Deployment) -> list[tuple[Path, int, int, str]]:
    """path, the most permissive mode allowed, what the service needs of it, kind"""
    paths = deployment.paths
    if (service := deployment.hand_made) is not None:
        # the account of the service may own its files: what others can do is judged
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
    "Nobody else can read the secrets or change the service",
    "owned by root (or by you), no wider than the mode it was made with",
    fault="Somebody else can read a secret or change what the service runs",
    explained_by=("unit.installed",),
)
def files_ownership(deployment: Deployment) -> Iterator[Finding]:
    """Every file of the deployment belongs to who deploys it and is open to nobody else than it must be.

    How: lstat of the configuration, the secrets, the provider file, the units, the releases and the directories around
    them: kind, owner and mode.
    Why: whoever can change one of them runs code as the service, and whoever reads a key can spend its tokens.
    """
    # the system's own deployment belongs to root; one under --root or of a user to whoever made it
    owner = (
        0
        if deployment.paths.etc.parent == Path("/etc")
        else files.file_facts(deployment.paths.etc).uid
    )
    paths = deployment.paths
    # only root's service runs as somebody else
    others = owner == 0 and deployment.paths.scope == "system"
    seen = 0
    for path, mode, needed, kind in _modes(deployment):
        # a unit may be a link into a checkout: the file counts that it leads to
        facts = files.file_facts(path.resolve() if deployment.hand_made is not None else path)
        if facts.kind == "missing":
            continue
        seen += 1
        at = shlex.quote(str(path))
        if facts.kind != kind:
            operators = path in (paths.config, paths.env, paths.proxy_key)
            remedy = (
                f"cp --remove-destination $(readlink -f {at}) {at}"
                if operators
                else f"rm -r {at} && {deployment.install}"
            )
            yield Finding(f"{path} is a {facts.kind}, not a {kind}", "fail", remedy)
        elif facts.uid != owner:
            yield Finding(
                f"{path} belongs to uid {facts.uid}, not {owner}",
                "fail",
                f"chown {owner} {at}",
                alone=deployment.is_alone,
            )
        elif facts.mode & ~mode:
            found = f"the mode of {path} is {facts.mode:04o}, wider than {mode:04o}"
            yield Finding(found, "fail", f"chmod {mode:o} {at}", alone=deployment.is_alone)
        elif others and facts.mode & needed != needed:
            yield Finding(
                f"the mode of {path} is {facts.mode:04o}: the service cannot read it",
                "fail",
                f"chmod {mode:o} {at}",
            )
    if not seen:
        raise Skip(f"nothing is installed: run {deployment.install}")
    yield Finding(f"{seen} paths as they should be")


@check(
    "release.in-force",
    "A release is in force",
    "the link current leads to a whole release",
    fault="No release is in force",
)
def release_in_force(deployment: Deployment) -> Iterator[Finding]:
    """There is a release to be started, and what it starts with is there.

    How: the link `current` and the release's release.json, which is written last.
    Why: a build that was interrupted or a link that leads nowhere ends the service at its next start, not now.
    """
    deployment.require_managed()
    if store.active_release(deployment.paths) is None:
        yield Finding(
            f"{deployment.paths.current} leads to no whole release", "fail", deployment.install
        )
        return
    yield Finding(deployment.release.name)


def _rebuild(deployment: Deployment) -> str:
    """The command that builds the release in force anew, beside it, and has it served."""
    # systemd's service is restarted by the installation; another one has to be told
    return (
        deployment.install
        if deployment.supervised or not deployment.is_live
        else f"{deployment.install}; {deployment.restart}"
    )


@check(
    "release.pinned",
    "The release is exactly what was locked",
    "every distribution, version and file hash as installed",
    fault="The release is not what was locked",
    timeout=60,
    requires=("config.valid", "release.in-force", "release.interpreter"),
)
def release_pinned(deployment: Deployment) -> Iterator[Finding]:
    """The release in force is what was installed: no distribution, version or file differs.

    How: the distributions and the digests of their file lists are compared with release.json, then the guard and the
    plugins, and every file whose inode, size or times are not those of that day with the digest in its list. `install`
    reads every file.
    Why: a dependency that drifted degrades strategies without a word, and code that was added runs with the service's
    keys. It does not protect against somebody who is root: they could change release.json as well.
    """
    record = integrity.record(deployment.release) or {}
    if record["optillm"] != deployment.config.optillm.version:
        yield Finding(
            f"OptiLLM {record['optillm']} is in force, {deployment.config.optillm.version} is configured",
            "fail",
            deployment.install,
        )
    for wrong in integrity.integrity_problems(
        deployment.release, plugins=False, touched_only=True
    ):  # those are for workdir.empty to tell
        yield Finding(wrong, "fail", _rebuild(deployment))
    yield Finding(
        f"{len(record['distributions'])} distributions of {deployment.release.name} as installed"
    )


@check(
    "release.interpreter",
    "The Python that the release was built on is still there",
    "it runs, and its minor version is the one of that day",
    fault="The Python that the release was built on is gone",
    timeout=30,
    requires=("release.in-force",),
)
def release_interpreter(deployment: Deployment) -> Iterator[Finding]:
    """The release can be started again: its interpreter runs and is of the version that it was built for.

    How: the interpreter of the release's virtual environment is asked for its version, which release.json has too.
    Why: an upgrade of the system's Python takes it away under a service that runs; it is found out at its next start.
    """
    if problem := integrity.interpreter_problem(deployment.release):
        yield Finding(
            problem,
            "fail",
            _rebuild(deployment),
            "the service cannot be started again once its process ends",
        )
    python = (integrity.record(deployment.release) or {}).get("python", {})
    yield Finding(f"{python.get('path')}, Python {python.get('version')}")


@check(
    "release.bytecode",
    "The release starts fast",
    "every package has its compiled bytecode",
    fault="The release has to be compiled at every start",
    requires=("release.in-force", "release.interpreter"),
    explained_by=("release.pinned",),
)
def release_bytecode(deployment: Deployment) -> Iterator[Finding]:
    """What was compiled at the installation is there.

    How: the first file of every package of the release, and the guard, are looked for in their __pycache__.
    Why: the service may not write there, so each start compiles everything anew: seconds in which nobody is answered.
    """
    if bare := integrity.uncompiled(deployment.release):
        where = shlex.quote(str(deployment.release))
        python = f"{where}/.venv/bin/python -m compileall -q {where}/.venv/lib {where}/guard"
        yield Finding(f"not compiled: {integrity.a_few(bare)}", "fail", python)
    yield Finding("compiled")


@check(
    "release.starts",
    "The release starts and runs a strategy",
    "it serves now; else: ready on a free port, locked, one strategy",
    fault="The release does not start",
    timeout=120,
    requires=("config.valid", "release.in-force", "release.pinned"),
)
def release_starts(deployment: Deployment) -> Iterator[Finding]:
    """The release in force can start and run a strategy.

    How: where it serves now, that is the proof. Else it is started on a free port against the embedded stand-in, has to be
    locked, and runs one strategy; no token is spent and LiteLLM is not asked.
    Why: files that are all there can still be a program that dies at its start.
    """
    if deployment.serving is not None:
        # it has started, and a second one beside it would disturb it
        yield Finding(f"it serves now, as process {deployment.serving.pids}")
        return
    try:
        proof = build.prove(deployment.release, deployment.config)
    except MissingFact:
        raise
    except OptictlError as error:
        yield Finding(error.what, "fail", _rebuild(deployment), error.detail[-300:])
    else:
        yield Finding(f"{proof['strategy']} ran with {proof['upstream_calls']} upstream calls")


@check(
    "workdir.empty",
    "The working directory runs nobody else's code",
    "only the configured plugins, not writable by the service",
    fault="Code that nobody configured is run at the start of the service",
    requires=("config.valid", "release.in-force"),
    explained_by=("process.guarded",),
)
def workdir_empty(deployment: Deployment) -> Iterator[Finding]:
    """The directory that the service works in holds the configured plugins, nothing else, and the service cannot write there.

    How: optillm/ below the release's work directory and below that of each live process; owner and mode.
    Why: OptiLLM executes ./optillm/plugins/*.py at its start, whoever put them there.
    """
    directories: dict[Path, int | None] = {}
    try:
        own = None if deployment.hand_made is not None else deployment.release / "work"
        places = (
            (own if own and p.directory == files.identity(own) else p.cwd, p.uid)
            for p in deployment.live.processes
        )
        directories = {place: uid for place, uid in places if place is not None}
    except MissingFact:
        service = deployment.hand_made
        if service is not None and service.directory is None:
            raise Skip("its unit names no working directory") from None
        directories = {
            service.directory
            if service and service.directory
            else deployment.release / "work": None
        }
    wanted = {f"optillm/plugins/{Path(name).name}" for name in deployment.config.plugins}
    for directory, uid in directories.items():
        code = {
            str(p.relative_to(directory))
            for p in files.tree(directory / "optillm")
            if "__pycache__" not in p.parts
        }
        if extra := sorted(code - wanted):
            yield Finding(
                f"{directory} holds {', '.join(extra[:3])}",
                "fail",
                f"rm {' '.join(shlex.quote(str(directory / name)) for name in extra)} && {deployment.restart}",
                "OptiLLM executes ./optillm/plugins/*.py at start",
                deployment.is_alone,
            )
        facts, at = files.file_facts(directory), shlex.quote(str(directory))
        if facts.mode & 0o022 or (uid is not None and uid != os.geteuid() and facts.uid == uid):
            yield Finding(
                f"the service, or others, may write in its working directory {directory}",
                "fail",
                deployment.take_over or f"chown {os.geteuid()} {at} && chmod go-w {at}",
                "OptiLLM executes ./optillm/plugins/*.py at start",
            )
    yield Finding(", ".join(map(str, directories)))
