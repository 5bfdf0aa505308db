"""Releases: build beside what runs, prove, switch.

A release is a directory `releases/ID` with `.venv/` (the untouched wheel and its locked
closure), `guard/`, `work/` (the service's working directory) and, written last and only
after the proof, `release.json`. A directory without it is half-built and of no use.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optictl import render, service, smoke
from optictl.config import Config
from optictl.demo.standin import StandIn
from optictl.errors import OptictlError
from optictl.guard import GUARD_VERSION
from optictl.host import files, network, uv
from optictl.host.uv import Interpreter, ToolError
from optictl.paths import Paths

Progress = Callable[[str], None]

GUARD = Path(__file__).resolve().parent / "guard"
#: A key for proofs, which only ever talk to the embedded stand-in.
_PROOF_KEY = "optillm-proof-of-a-release-0123"


@dataclass(frozen=True)
class Wanted:
    """The release a configuration asks for: `id` is the version and the hash of all that it is made of."""

    id: str
    version: str
    profile: str
    lock: Path
    plugins: tuple[Path, ...]

    def directory(self, paths: Paths) -> Path:
        return paths.releases / self.id


def lock_file(version: str, profile: str) -> Path:
    """The shipped hash lock of an OptiLLM version.

    Raises:
        OptictlError: optictl holds no lock for it.
    """
    locks = render.template_directory() / "locks"
    path = locks / f"optillm-{version}-{profile}.txt"
    if not path.is_file():
        have = sorted({p.name.removeprefix("optillm-").rsplit("-", 1)[0] for p in locks.glob("optillm-*.txt")})
        raise OptictlError(
            f"optictl holds no lock for OptiLLM {version} (profile {profile}), only for {', '.join(have)}",
            remedy=f"set optillm.version to {have[-1]} in optictl.yaml",
        )
    return path


def wanted(config: Config, paths: Paths) -> Wanted:
    """The release that `config` asks for. Plugin paths are relative to the configuration file."""
    lock = lock_file(config.optillm.version, config.optillm.profile)
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
    return Wanted(
        f"{config.optillm.version}-{digest.hexdigest()[:12]}", config.optillm.version, config.optillm.profile, lock, plugins
    )


def record(directory: Path) -> dict[str, Any] | None:
    """A release's release.json, or None when it is missing or broken: the release is half-built."""
    try:
        data = json.loads((directory / "release.json").read_text())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def in_force(paths: Paths) -> str | None:
    """The id of the release that `current` points at."""
    if files.facts(paths.current).kind != "link":
        return None
    target = paths.current.resolve()
    return target.name if target.parent == paths.releases.resolve() and record(target) else None


def choose_interpreter(found: list[Interpreter], others_must_reach: bool) -> tuple[Interpreter | None, list[str]]:
    """The interpreter to build on, and why others were passed over. Pure.

    The newest that the locked closure has wheels for; `others_must_reach`: the service
    runs as a user that cannot enter private homes.
    """
    fitting, passed = [], []
    for interpreter in sorted(found, key=lambda i: i.version, reverse=True):
        if not interpreter.fits:
            passed.append(f"{interpreter}: the closure is locked for Python 3.10 to 3.13")
        elif others_must_reach and interpreter.closed is not None:
            passed.append(f"{interpreter}: the service user cannot enter {interpreter.closed}")
        else:
            fitting.append(interpreter)
    return (fitting[0] if fitting else None), passed


def interpreter(others_must_reach: bool, chosen: Path | None, progress: Progress) -> Interpreter:
    """Find the interpreter, saying which were passed over.

    Raises:
        OptictlError: none fits.
    """
    if chosen is not None:
        one = uv.inspect(chosen)
        if one is None:
            raise OptictlError(f"{chosen} is not a Python interpreter that runs")
        candidates = [one]
    else:
        candidates = uv.interpreters()
    best, passed = choose_interpreter(candidates, others_must_reach)
    for line in passed:
        progress(f"passed over {line}")
    if best is None:
        raise OptictlError(
            "no Python 3.10 to 3.13 on this machine that the service user can execute",
            remedy="apt-get install python3, or: UV_PYTHON_INSTALL_DIR=/opt/python uv python install 3.12",
            detail="\n".join(passed),
        )
    return best


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
    except ToolError as error:
        raise OptictlError(
            f"the release could not be built: {error.what} failed",
            remedy=f"mend what it names and run {paths.command('install')} again; what was in force still is",
            detail=error.output,
        ) from None
    progress("proving the release: starting it and running one strategy against the stand-in")
    proof = prove(directory, config)
    data = {
        "schema": 1,
        "id": want.id,
        "optillm": want.version,
        "profile": want.profile,
        "guard": GUARD_VERSION,
        "lock_sha256": files.sha256(want.lock),
        "python": {"path": str(python.path), "version": ".".join(map(str, python.version))},
        "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "proof": proof,
        "distributions": distributions(venv),
        "files": own_files(directory),
    }
    files.write(directory / "release.json", json.dumps(data, indent=1) + "\n", 0o644)


def prove(directory: Path, config: Config) -> dict[str, Any]:
    """Start a release on a free port against the stand-in and run one strategy through it.

    Returns what the strategy did. No token is spent and LiteLLM is not asked.

    Raises:
        OptictlError: it did not start, was not locked, or the strategy did not run.
    """
    with files.scratch() as scratch, StandIn(models=config.base_models, key="stand-in").running() as upstream:
        trial = config.moved(network.free_port(), upstream.base_url, request=60, drain=1)
        home = scratch / "home"
        files.make_directory(home / ".optillm")
        files.write(home / ".optillm" / "proxy_config.yaml", render.proxy_config(trial), 0o644)
        log = scratch / "log"
        with (
            log.open("wb") as output,
            service.running(trial, directory, home, proxy_key=_PROOF_KEY, upstream_key="stand-in", output=output) as process,
        ):
            service.wait_ready(process, trial, log)
            locked = network.request("GET", f"{trial.url}/models")
            if locked.status != 401:
                raise OptictlError(f"the release serves /v1/models without a key: {locked.status}")
            model = f"{trial.strategies[0]}-{trial.model}"
            result = smoke.judge(model, trial, smoke.run(trial.url, _PROOF_KEY, model, smoke.PROMPT, 60))
            if result.status != "pass":
                raise OptictlError(f"the release did not prove itself: {result.found}", detail=log.read_text()[-2000:])
    data = dict(result.data or {})
    return {name: data[name] for name in ("strategy", "upstream_calls", "latency_ms")}


def _site_packages(venv: Path) -> Path:
    return next((venv / "lib").glob("python3.*")) / "site-packages"


def distributions(venv: Path) -> dict[str, dict[str, str]]:
    """name -> version and the digest of RECORD, for every distribution installed in a venv."""
    found = {}
    for directory in sorted(_site_packages(venv).glob("*.dist-info")):
        name, version = directory.name.removesuffix(".dist-info").rsplit("-", 1)
        found[name.lower().replace("_", "-")] = {"version": version, "record_sha256": files.sha256(directory / "RECORD")}
    return found


def own_files(directory: Path) -> dict[str, str]:
    """path below the release -> digest, for the guard and the plugins."""
    sources = [p for part in ("guard", "work") for p in files.tree(directory / part) if p.suffix == ".py"]
    return {str(p.relative_to(directory)): files.sha256(p) for p in sources}


def switch(paths: Paths, release: str) -> None:
    """Put a release in force, in one step."""
    # relative, so that a deployment under --root can be looked at from elsewhere
    files.point(paths.current, Path("releases") / release)


def half_built(paths: Paths) -> list[Path]:
    """Directories that an interrupted build left behind."""
    if not paths.releases.is_dir():
        return []
    return [p for p in sorted(paths.releases.iterdir()) if p.is_dir() and record(p) is None]
