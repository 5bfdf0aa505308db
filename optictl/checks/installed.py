"""Files on disk: the provider configuration, ownership, the release."""

from __future__ import annotations

import base64
import csv
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from optictl import releases
from optictl.checks.registry import Finding, Skip, check
from optictl.checks.site import Site
from optictl.errors import OptictlError
from optictl.guard import invariants
from optictl.host import files


@check(
    "proxy-config.litellm-only",
    "The provider file names LiteLLM and nothing else",
    "one provider, the upstream, key from the environment",
)
def proxy_config_litellm_only(site: Site) -> Iterator[Finding]:
    path = site.paths.proxy_config
    for problem in invariants.proxy_config_problems(files.read(path), site.config.upstream.base_url):
        yield Finding(f"{path} {problem}", "fail", site.paths.command("install"))
    yield Finding(f"{path} names {site.config.upstream.base_url}")


def _modes(site: Site) -> list[tuple[Path, int, str]]:
    """path, the most permissive mode allowed, kind"""
    paths = site.paths
    return [
        (paths.config, 0o644, "file"),
        (paths.env, 0o600, "file"),
        (paths.proxy_key, 0o600, "file"),
        (paths.proxy_config, 0o644, "file"),
        (paths.proxy_config.parent, 0o755, "directory"),
        (paths.service, 0o644, "file"),
        (paths.socket, 0o644, "file"),
        (paths.releases, 0o755, "directory"),
    ]


@check(
    "files.ownership",
    "Nobody else can read the secrets or change the service",
    "owned by root (or by you), no wider than the mode it was made with",
)
def files_ownership(site: Site) -> Iterator[Finding]:
    # the system's own deployment belongs to root; one under --root or of a user to whoever made it
    owner = 0 if site.paths.etc == Path("/etc/optillm-proxy") else files.facts(site.paths.etc).uid
    seen = 0
    for path, mode, kind in _modes(site):
        facts = files.facts(path)
        if facts.kind == "missing":
            continue
        seen += 1
        if facts.kind != kind:
            yield Finding(
                f"{path} is a {facts.kind}, not a {kind}", "fail", f"remove {path} and run {site.paths.command('install')}"
            )
        elif facts.uid != owner:
            yield Finding(f"{path} belongs to uid {facts.uid}, not {owner}", "fail", f"chown {owner} {path}")
        elif facts.mode & ~mode:
            yield Finding(f"the mode of {path} is {facts.mode:04o}, wider than {mode:04o}", "fail", f"chmod {mode:o} {path}")
    if not seen:
        raise Skip(f"nothing is installed: run {site.paths.command('install')}")
    yield Finding(f"{seen} paths as they should be")


def _record(path: Path) -> Iterator[tuple[str, str]]:
    """path below site-packages, digest: the lines of a RECORD that carry one."""
    with path.open(newline="") as file:
        for row in csv.reader(file):
            if len(row) == 3 and row[1].startswith("sha256="):
                yield row[0], row[1].removeprefix("sha256=")


def _urlsafe(path: Path) -> str:
    return base64.urlsafe_b64encode(bytes.fromhex(files.sha256(path))).rstrip(b"=").decode()


def _changed(site_packages: Path, record: Path) -> list[str]:
    wrong = []
    for name, digest in _record(record):
        try:
            if _urlsafe(site_packages / name) != digest:
                wrong.append(name)
        except OSError:
            wrong.append(name)
    return wrong


@check(
    "release.pinned",
    "The release is exactly what was locked",
    "every distribution, version and file hash as installed",
    timeout=60,
)
def release_pinned(site: Site) -> Iterator[Finding]:
    record = releases.record(site.release) or {}
    venv = site.release / ".venv"
    expected, found = record["distributions"], releases.distributions(venv)
    again = f"rm -r {site.release} && {site.paths.command('install')}"
    if record["optillm"] != site.config.optillm.version:
        yield Finding(
            f"OptiLLM {record['optillm']} is in force, {site.config.optillm.version} is configured",
            "fail",
            site.paths.command("install"),
        )
    for name in sorted({*expected, *found}):
        if name not in found:
            yield Finding(f"{name} is missing", "fail", again)
        elif name not in expected:
            yield Finding(f"{name} {found[name]['version']} was added", "fail", again)
        elif found[name]["version"] != expected[name]["version"]:
            yield Finding(f"{name} is {found[name]['version']}, not {expected[name]['version']}", "fail", again)
        elif found[name] != expected[name]:
            yield Finding(f"the file list of {name} was changed", "fail", again)
    site_packages = next((venv / "lib").glob("python3.*")) / "site-packages"
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing lets go of the GIL
        wrong = [
            name
            for names in pool.map(lambda r: _changed(site_packages, r), site_packages.glob("*.dist-info/RECORD"))
            for name in names
        ]
    own = releases.own_files(site.release)
    wrong += sorted(name for name in {*own, *record["files"]} if own.get(name) != record["files"].get(name))
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        yield Finding(f"changed since installation: {', '.join(wrong[:3])}{more}", "fail", again)
    yield Finding(f"{len(expected)} distributions of {site.release.name} as installed")


@check(
    "release.starts",
    "The release starts and runs a strategy",
    "it serves now; else: ready on a free port, locked, one strategy",
    timeout=120,
)
def release_starts(site: Site) -> Iterator[Finding]:
    if site.serving is not None:
        # it has started, and a second one beside it would disturb it
        yield Finding(f"it serves now, as process {site.serving.pids}")
        return
    try:
        proof = releases.prove(site.release, site.config)
    except OptictlError as error:
        yield Finding(error.what, "fail", f"rm -r {site.release} && {site.paths.command('install')}", error.detail[-300:])
    else:
        yield Finding(f"{proof['strategy']} ran with {proof['upstream_calls']} upstream calls")


@check(
    "workdir.empty", "The working directory runs nobody else's code", "only the configured plugins, not writable by the service"
)
def workdir_empty(site: Site) -> Iterator[Finding]:
    directories: dict[Path, int | None] = {}
    try:
        own = site.release / "work"
        places = ((own if p.directory == files.identity(own) else p.cwd, p.uid) for p in site.live.processes)
        directories = {place: uid for place, uid in places if place is not None}
    except Skip:
        directories = {site.release / "work": None}
    wanted = {f"optillm/plugins/{Path(name).name}" for name in site.config.plugins}
    for directory, uid in directories.items():
        code = {str(p.relative_to(directory)) for p in files.tree(directory / "optillm") if "__pycache__" not in p.parts}
        if extra := sorted(code - wanted):
            yield Finding(
                f"{directory} holds {', '.join(extra[:3])}", "fail", "remove it, or name it under plugins: and install again",
                "OptiLLM executes ./optillm/plugins/*.py at start",
            )  # fmt: skip
        facts = files.facts(directory)
        if facts.mode & 0o022 or (uid is not None and uid != os.geteuid() and facts.uid == uid):
            yield Finding(
                f"the service, or others, may write in its working directory {directory}",
                "fail",
                "start the service that optictl installs: its working directory is read-only to it",
                "OptiLLM executes ./optillm/plugins/*.py at start",
            )
    yield Finding(", ".join(map(str, directories)))
