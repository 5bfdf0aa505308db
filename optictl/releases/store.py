"""Releases: build beside what runs, prove, switch.

A release is a directory `releases/ID` with `.venv/` (the untouched wheel and its locked
closure), `guard/`, `work/` (the service's working directory) and, written last and only
after the proof, `release.json`. A directory without it is half-built and of no use. One that
is broken is not mended: the same is built beside it, as `releases/ID.2`.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from optictl.deployment import render
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.errors import OptictlError
from optictl.guard import GUARD_VERSION, settings
from optictl.host import files, network, uv
from optictl.host.uv import Interpreter
from optictl.proof import evidence
from optictl.proof import trial as release_process
from optictl.proof.standin import StandIn
from optictl.releases import integrity

Progress = Callable[[str], None]

GUARD = Path(__file__).resolve().parent.parent / "guard"
#: The Python that a remedy installs: long supported, and wheels of every profile exist for it.
_ADVISED = "3.12"
#: A key for proofs, which only ever talk to the embedded stand-in.
_PROOF_KEY = "optillm-proof-of-a-release-0123"


@dataclass(frozen=True)
class Wanted:
    """The release a configuration asks for: `id` is the version and the hash of all that it is made of.

    `name` is its directory's: the id, with a number behind it where one of that id is broken.
    """

    id: str
    version: str
    profile: str
    lock: Path
    plugins: tuple[Path, ...]
    name: str

    def directory(self, paths: Paths) -> Path:
        return paths.releases / self.name


def lock_name(version: str, profile: str) -> str:
    """The file name of an OptiLLM version's hash lock."""
    return f"optillm-{version}-{profile}.txt"


def locked_versions(paths: Paths | None, profile: str) -> list[str]:
    """The OptiLLM versions that there is a lock for, shipped or of this deployment's own, oldest first."""
    places = [shipped_locks(), *([paths.locks] if paths else [])]
    names = {p.name for place in places for p in place.glob(lock_name("*", profile))}
    versions = {name.removeprefix("optillm-").removesuffix(f"-{profile}.txt") for name in names}
    return sorted(versions, key=lambda v: [int(part) if part.isdigit() else 0 for part in v.split(".")])


def shipped_locks() -> Path:
    return render.template_directory() / "locks"


def lock_file(version: str, profile: str, paths: Paths) -> Path:
    """The hash lock of an OptiLLM version: this deployment's own, else the shipped one.

    Raises:
        OptictlError: there is none.
    """
    name = lock_name(version, profile)
    path = next((place / name for place in (paths.locks, shipped_locks()) if (place / name).is_file()), None)
    if path is None:
        have = locked_versions(paths, profile)
        raise OptictlError(
            f"optictl holds no lock for OptiLLM {version} (profile {profile}), only for {', '.join(have)}",
            remedy=f"set optillm.version to {have[-1]} in optictl.yaml, or make one: "
            f"{paths.command(f'upgrade {version} --resolve')}",
        )
    return path


def wanted(config: Config, paths: Paths) -> Wanted:
    """The release that `config` asks for. Plugin paths are relative to the configuration file."""
    lock = lock_file(config.optillm.version, config.optillm.profile, paths)
    plugins = tuple((paths.etc / name).resolve() for name in config.plugins)
    for path in plugins:
        if path.suffix != ".py" or not path.is_file():
            raise OptictlError(f"the plugin {path} is not a Python file", remedy="mend plugins: in optictl.yaml")
    if len({path.name for path in plugins}) < len(plugins):
        raise OptictlError("two plugins have the same file name", remedy="rename one of them")
    digest = hashlib.sha256()
    sources = [p for p in files.tree(GUARD) if p.suffix == ".py"]
    for path in [lock, *sources, *plugins]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    id = f"{config.optillm.version}-{digest.hexdigest()[:12]}"
    return Wanted(id, config.optillm.version, config.optillm.profile, lock, plugins, name=id)


def standing(want: Wanted, paths: Paths) -> tuple[Wanted, bool, str]:
    """Where the wanted release stands or is to be built, whether it is there, and what is wrong with the one in force."""
    current = in_force(paths)
    same = [name for name in complete(paths) if (integrity.record(paths.releases / name) or {}).get("id") == want.id]
    reason = ""
    for name in sorted(same, key=lambda name: name != current):
        wrong = integrity.damage(paths.releases / name)
        if not wrong:
            return replace(want, name=name), True, ""
        if name == current:
            reason = f"the one in force is broken: {wrong[0]}"
    free = (name for name in (want.id, *(f"{want.id}.{n}" for n in range(2, 1000))) if name not in same)
    return replace(want, name=next(free)), False, reason


def guard_flags(paths: Paths, name: str) -> list[str]:
    """The flags that a release's guard knows; one that is still to be built has this optictl's guard."""
    return list((integrity.record(paths.releases / name) or {}).get("flags", settings.flags()))


def complete(paths: Paths) -> list[str]:
    """The names of the releases that were proven, in the order in which they were built."""
    if not paths.releases.is_dir():
        return []
    found = [(p.name, data) for p in sorted(paths.releases.iterdir()) if (data := integrity.record(p)) is not None]
    return [name for name, _ in sorted(found, key=lambda pair: str(pair[1].get("built")))]


def in_force(paths: Paths) -> str | None:
    """The name of the release that `current` points at."""
    return _linked(paths, paths.current)


def _linked(paths: Paths, link: Path) -> str | None:
    if files.facts(link).kind != "link":
        return None
    target = link.resolve()
    return target.name if target.parent == paths.releases.resolve() and integrity.record(target) else None


@dataclass(frozen=True)
class Choice:
    """The interpreter to build on, or None with the problem and what to do; why others were passed over, a line each."""

    interpreter: Interpreter | None
    passed_over: list[str]
    problem: str = ""
    remedy: str = ""


def choose_interpreter(found: list[Interpreter], others_must_reach: bool) -> tuple[Interpreter | None, list[str]]:
    """The interpreter to build on, and why others were passed over. Pure.

    The newest that the locked closure has wheels for; `others_must_reach`: the service
    runs as a user that cannot enter private homes.
    """
    fitting, passed = [], []
    for interpreter in sorted(found, key=lambda i: i.version, reverse=True):
        if not interpreter.fits:
            age = "old" if interpreter.version[:2] < uv.OLDEST else "new"
            passed.append(f"{interpreter}: too {age}, the closure is locked for Python {uv.SUPPORTED}")
        elif interpreter.unfit:
            passed.append(f"{interpreter}: {interpreter.unfit}")
        elif others_must_reach and interpreter.closed is not None:
            passed.append(f"{interpreter}: the service user cannot enter {interpreter.closed}")
        else:
            fitting.append(interpreter)
    return (fitting[0] if fitting else None), passed


def interpreter_remedy(install: str, others_must_reach: bool, offered: tuple[int, ...] | None, uv_program: Path) -> str:
    """The command that installs a fitting Python and then this deployment on it. Pure.

    `install`: the command of optictl; `offered`: what apt would install as python3, None where that is installed or
    there is no apt. uv makes a link without the patch version beside each interpreter that it installs.
    """
    if offered is not None and uv.OLDEST <= offered <= uv.NEWEST:
        return f"sudo apt-get install --yes python3 && {install} --python /usr/bin/python3"
    program = shlex.quote(str(uv_program))
    if not others_must_reach:
        return f"{program} python install {_ADVISED} && {install}"
    python = f"/opt/python/cpython-{_ADVISED}-linux-{platform.machine()}-gnu/bin/python{_ADVISED}"
    return f"sudo env UV_PYTHON_INSTALL_DIR=/opt/python {program} python install {_ADVISED} && {install} --python {python}"


def choose(paths: Paths, others_must_reach: bool, chosen: Path | None) -> Choice:
    """The interpreter that a release of this deployment would be built on. Builds nothing.

    `others_must_reach`: the service runs as another user than optictl; `chosen`: the one that the operator named.

    Raises:
        OptictlError: uv cannot list the interpreters.
    """
    if chosen is not None:
        named = uv.inspect(chosen)
        running, broken = ([named], []) if named else ([], [chosen])
    else:
        active = (integrity.record(paths.current) or {}).get("python", {}).get("path")
        running, broken = uv.interpreters([Path(active)] if active else [])
    best, passed = choose_interpreter(running, others_must_reach)
    passed += [f"{path}: {'it does not run' if path.exists() else 'it is gone'}" for path in broken]
    if best is not None:
        return Choice(best, passed)
    remedy = interpreter_remedy(paths.command("install"), others_must_reach, uv.offered_by_apt(), uv.program())
    where = f"{chosen} is not one" if chosen else "there is none on this machine"
    problem = f"a release needs a Python {uv.SUPPORTED} that the service's user can execute: {where}"
    return Choice(None, passed, problem, remedy)


def interpreter(paths: Paths, others_must_reach: bool, chosen: Path | None, progress: Progress) -> Interpreter:
    """Choose the interpreter, saying which were passed over.

    Raises:
        OptictlError: none fits.
    """
    choice = choose(paths, others_must_reach, chosen)
    if choice.interpreter is None:
        raise OptictlError(choice.problem, remedy=choice.remedy, detail="\n".join(choice.passed_over))
    for line in choice.passed_over:
        progress(f"passed over {line}")
    return choice.interpreter


def build(want: Wanted, paths: Paths, config: Config, python: Interpreter, wheelhouse: Path | None, progress: Progress) -> None:
    """Build and prove a release beside those that exist. Half-built ones of the same id are replaced.

    Raises:
        OptictlError: it could not be built or did not prove itself; nothing in force was touched.
    """
    directory = want.directory(paths)
    files.remove(directory)
    files.make_directory(directory)
    venv = directory / ".venv"
    try:
        progress(f"creating a virtual environment on {python}")
        uv.make_venv(venv, python.path)
        progress(f"installing OptiLLM {want.version} and its closure, every hash checked")
        uv.install(venv, want.lock, wheelhouse)
        progress("copying the guard in")
        files.copy_tree(GUARD, directory / "guard")
        plugin_directory = directory / "work" / "optillm" / "plugins"
        files.make_directory(plugin_directory if want.plugins else directory / "work")
        for plugin in want.plugins:
            files.copy(plugin, plugin_directory / plugin.name)
        uv.compile_tree(venv / "bin/python", directory / "guard")
        # a strict umask, now or when uv filled its cache, would keep the service's user out
        files.open_to_readers(directory)
    except OptictlError as error:
        raise OptictlError(
            f"the release could not be built: {error.what}",
            remedy=f"{error.remedy or 'correct what it names'}; then run {paths.command('install')} again",
            detail=error.detail,
        ) from None
    progress("proving the release: starting it and running one strategy against the stand-in")
    proof = prove(directory, config, paths.scratch)
    data = {
        "schema": 1,
        "id": want.id,
        "optillm": want.version,
        "profile": want.profile,
        "guard": GUARD_VERSION,
        "flags": settings.flags(),
        "lock_sha256": files.sha256(want.lock),
        "python": {"path": str(python.path), "version": ".".join(map(str, python.version))},
        "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "proof": proof,
        "distributions": integrity.distributions(venv),
        "files": integrity.own_files(directory),
    }
    progress("reading all of it once, and noting how its files look on the disk")
    files.write(directory / integrity.STAMPS, json.dumps(integrity.stamps(venv)), 0o644)
    files.write(directory / "release.json", json.dumps(data, indent=1) + "\n", 0o644)


def prove(directory: Path, config: Config, scratch_parent: Path | None = None) -> dict[str, Any]:
    """Start a release on a free port against the stand-in and run one strategy through it.

    Returns what the strategy did. No token is spent and LiteLLM is not asked. `scratch_parent`: where its files lie meanwhile.

    Raises:
        OptictlError: it did not start, was not locked, or the strategy did not run.
    """
    with (
        files.scratch(parent=scratch_parent) as scratch,
        StandIn(models=config.base_models, key="stand-in").running() as upstream,
    ):
        trial = config.moved(network.free_port(), upstream.base_url, request=60, drain=1)
        home = scratch / "home"
        files.make_directory(home / ".optillm")
        files.write(home / ".optillm" / "proxy_config.yaml", render.proxy_config(trial), 0o644)
        log = scratch / "log"
        with (
            log.open("wb") as output,
            release_process.running(
                trial, directory, home, proxy_key=_PROOF_KEY, upstream_key="stand-in", output=output
            ) as process,
        ):
            release_process.wait_ready(process, trial, log)
            locked = network.request("GET", f"{trial.url}/models")
            if locked.status != 401:
                raise OptictlError(f"the release serves /v1/models without a key: {locked.status}")
            model = f"{trial.strategies[0]}-{trial.model}"
            result = evidence.judge(model, trial, evidence.run(trial.url, _PROOF_KEY, model, evidence.PROMPT, 60))
            if result.status != "pass":
                raise OptictlError(f"the release did not prove itself: {result.found}", detail=log.read_text()[-2000:])
    data = dict(result.data or {})
    return {name: data[name] for name in ("strategy", "upstream_calls", "latency_ms")}


def switch(paths: Paths, release: str) -> None:
    """Put a release in force, in one step. The one before it is what `rollback` goes to."""
    current = in_force(paths)
    if current is not None and current != release:
        files.point(paths.previous, Path("releases") / current)
    # relative, so that a deployment under --root can be looked at from elsewhere
    files.point(paths.current, Path("releases") / release)


def previous(paths: Paths) -> str | None:
    """The release that was in force before, if it is still there."""
    name = _linked(paths, paths.previous)
    return None if name == in_force(paths) else name


def surplus(names: Sequence[str], keep: int, current: str | None, previous: str | None) -> list[str]:
    """Which of these releases, oldest first, to remove so that `keep` stay. Pure.

    The one in force comes first, then the one before it, then the newest.
    """
    ranked = [name for name in (current, previous) if name is not None and name in names]
    ranked += [name for name in reversed(names) if name not in ranked]
    return [name for name in ranked[max(1, keep) :] if name != current]


@dataclass(frozen=True)
class Facts:
    """One release on the disk. `state`: in force, previous, kept or half-built; `size` in bytes, `closure` of the lock."""

    name: str
    version: str
    profile: str
    closure: str
    built: str
    size: int
    state: str

    def as_dict(self) -> dict[str, Any]:
        """The JSON shape: a result whose data are these facts."""
        return {"id": self.name, "status": "fail" if self.state == "half-built" else "pass", "data": asdict(self)}


def listing(paths: Paths) -> list[Facts]:
    """Every release on the disk, the newest first, then what is half-built."""
    states = {in_force(paths): "in force", previous(paths): "previous"}
    found = []
    for name in reversed(complete(paths)):
        data, directory = integrity.record(paths.releases / name) or {}, paths.releases / name
        found.append(
            Facts(
                name,
                data.get("optillm", ""),
                data.get("profile", ""),
                data.get("lock_sha256", "")[:12],
                data.get("built", ""),
                files.size(directory),
                states.get(name, "kept"),
            )
        )
    return found + [Facts(p.name, "", "", "", "", files.size(p), "half-built") for p in half_built(paths)]


def remove(directory: Path) -> None:
    """Take a release away. A removal that is interrupted leaves a half-built one."""
    files.remove(directory / "release.json")
    files.remove(directory)


def half_built(paths: Paths) -> list[Path]:
    """Directories that an interrupted build left behind."""
    if not paths.releases.is_dir():
        return []
    return [p for p in sorted(paths.releases.iterdir()) if p.is_dir() and integrity.record(p) is None]
