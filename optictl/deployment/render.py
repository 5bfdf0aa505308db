"""Configuration -> the text of every artefact. Pure; no template may use an undefined name."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from optictl.deployment import model_names
from optictl.deployment.paths import HOMES
from optictl.guard.invariants import REQUEST_THREADS

if TYPE_CHECKING:
    from optictl.deployment.config import Config
    from optictl.deployment.paths import Paths

#: Where LiteLLM finds the proxy key. Not an OPTILLM_ name: in a shared env file the guard would refuse that.
LITELLM_KEY_VARIABLE = "LITELLM_OPTILLM_KEY"
#: Seconds that LiteLLM waits longer than the guard does, so that the guard's answer arrives.
LITELLM_GRACE = 30
#: Seconds that systemd waits longer than the drain takes.
STOP_GRACE = 15


def template_directory() -> Path:
    """`templates/`: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "templates"
    return installed if installed.is_dir() else package.parent / "templates"


#: Text that YAML reads as text without quotes: no number, no date, nothing that means something.
_PLAIN = re.compile(
    r"(?!(?i:true|false|yes|no|on|off|null|y|n)$)[A-Za-z/][\w./@+-]*(:[\w./@+-]+)*|\d+\.\d+\.\d[\w.]*",
    re.ASCII,
)


def _yaml(value: str | None) -> str:
    """A scalar for a YAML file, quoted where it would not be read back as the same text."""
    if value is None:
        return "null"
    if _PLAIN.fullmatch(value):
        return value
    signs = {'"': '\\"', "\\": "\\\\"}
    return (
        '"'
        + "".join(signs.get(c) or (c if c.isprintable() else f"\\U{ord(c):08X}") for c in value)
        + '"'
    )


@cache
def _environment() -> Environment:
    # the output is configuration for systemd and YAML, never HTML
    environment = Environment(
        loader=FileSystemLoader(template_directory()),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["yaml"] = _yaml
    return environment


def _render(template: str, **values: object) -> str:
    return _environment().get_template(template).render(values)


def page(template: str, **values: object) -> str:
    """One of templates/pages/: an HTML file that needs nothing else, with every value escaped."""
    environment = Environment(
        loader=FileSystemLoader(template_directory() / "pages"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)


def guard_arguments(config: Config, key_reference: str) -> list[str]:
    """The guard's flags, every one explicit. `key_reference` is `@FILE`, never a key."""
    return [
        "--host",
        config.listen.host,
        "--port",
        str(config.listen.port),
        "--base-url",
        config.upstream.base_url,
        "--approach",
        config.approach,
        "--model",
        config.model,
        "--optillm-api-key",
        key_reference,
        "--strategies",
        ",".join(config.strategies),
        "--base-models",
        ",".join(config.base_models),
        "--max-retries",
        str(config.upstream.max_retries),
        "--request-timeout",
        str(config.timeouts.request),
        "--drain-timeout",
        str(config.timeouts.drain),
        "--max-upstream-calls",
        str(config.limits.max_upstream_calls),
        "--max-body-bytes",
        str(config.limits.max_body_bytes),
        "--max-in-flight",
        str(config.limits.max_in_flight),
        "--workers",
        str(config.workers),
        "--max-traces",
        str(config.limits.max_traces),
    ]


def command(
    config: Config, release: Path, key_reference: str, *more: str, flags: Sequence[str] = ()
) -> list[str]:
    """The service's whole command line, from the release at `release`; `more` are flags of a unit's own.

    `flags` are those that the release's guard knows (none given: all): an older one has its defaults for the others.
    """
    words = [*guard_arguments(config, key_reference), *more]
    pairs = zip(words[::2], words[1::2], strict=True)
    known = [word for pair in pairs if not flags or pair[0] in flags for word in pair]
    return [str(release / ".venv/bin/python"), "-I", str(release / "guard"), *known]


def _literal(value: object) -> str:
    """A value that systemd takes as it is, but for its % specifiers."""
    return str(value).replace("%", "%%")


def _systemd_word(word: str, dollar: str = "$$") -> str:
    """A word of ExecStart= (of Environment= with `dollar="$"`), quoted where systemd would split or expand it."""
    word = _literal(word).replace("$", dollar)
    if re.fullmatch(r"[A-Za-z0-9@%$_./:,=+&|-]+", word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _exec_start(words: Sequence[str]) -> str:
    """The specification's six flags on a line, then one a line: a diff of two units shows what changed."""
    lines = [" ".join(words[:3]), " ".join(words[3:15])]
    lines += [" ".join(words[i : i + 2]) for i in range(15, len(words), 2)]
    return " \\\n  ".join(lines)


@dataclass(frozen=True)
class Host:
    """What a unit depends on besides the configuration. The defaults need no machine.

    `systemd` is the version that will read the unit; `interpreter` a Python's prefix that
    lies outside /usr and has to be seen inside a sealed root, or None. `release` is the
    directory to start instead of the one in force, `flags` those that its guard knows. `program` is the optictl
    that the check's unit runs, `socket_proxyd` the program behind the relay to the upstream.
    """

    systemd: int = 252
    interpreter: Path | None = None
    release: Path | None = None
    flags: tuple[str, ...] = ()
    program: Path = Path("/usr/local/bin/optictl")
    socket_proxyd: Path = Path("/usr/lib/systemd/systemd-socket-proxyd")


def is_sealed(config: Config, paths: Paths) -> bool:
    """Whether the service gets no network and an empty root. Only the system's manager can give that."""
    return config.isolation == "sealed" and paths.scope == "system"


def home(config: Config, paths: Paths) -> Path:
    """The HOME of the service, named by what its proxy_config.yaml says.

    So a unit and the file that it needs change in one step: the unit's own rename.
    """
    return paths.home / hashlib.sha256(proxy_config(config).encode()).hexdigest()[:12]


def relay_socket(paths: Paths) -> Path:
    """Where a sealed service finds the relay to its upstream."""
    return Path(f"/run/{paths.upstream_name}/socket")


def unit(config: Config, paths: Paths, host: Host = Host()) -> str:
    """optillm-proxy.service"""
    sealed = is_sealed(config, paths)
    release = host.release or paths.current
    relay = ["--upstream-socket", str(relay_socket(paths))] if sealed else []
    own = ["--upstream-env", "@CREDENTIALS/upstream_env", *relay]
    words = command(config, release, "@CREDENTIALS/proxy_key", *own, flags=host.flags)
    # systemd sets the variable from 247 on; its specifier %d came with 250
    directory = "@${CREDENTIALS_DIRECTORY}/"
    quoted = [_systemd_word(word).replace("@CREDENTIALS/", directory) for word in words]
    places = (paths.opt, paths.home)
    # before the first release is active there is no link to it, and a missing path would end the start
    seen = [paths.releases, *([] if host.release else [paths.current]), paths.home]
    return _render(
        "optillm-proxy.service.j2",
        name=paths.name,
        version=config.optillm.version,
        sockets=[paths.socket_unit, *([f"{paths.upstream_name}.socket"] if sealed else [])],
        exec_start=_exec_start(quoted),
        working_directory=_literal(release / "work"),
        env_file=_literal(paths.env),
        home_variable=_systemd_word(f"HOME={home(config, paths)}", dollar="$"),
        proxy_key_file=_literal(paths.proxy_key),
        stop_timeout=config.timeouts.drain + STOP_GRACE,
        workers=config.workers,
        # a waiting request holds one thread, a running one a second and those of its strategy
        tasks_max=(128 + REQUEST_THREADS * config.limits.max_in_flight) * config.workers,
        scope=paths.scope,
        sealed=sealed,
        root_directory=_literal(paths.root_directory),
        seen=" ".join(_systemd_word(str(p), dollar="$") for p in seen),
        interpreter=host.interpreter and _systemd_word(str(host.interpreter), dollar="$"),
        systemd=host.systemd,
        upstream_name=paths.upstream_name,
        # a deployment that --root put below a home cannot have homes hidden from it
        below_home=_lies_in(places, HOMES),
    )


#: What PrivateTmp= hides.
_TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108  (nothing is written there)
#: Checks that the timer leaves out; its unit says why.
_UNTIMED = ("release.starts", "credential.mode")


def _lies_in(places: Iterable[Path], directories: Iterable[Path]) -> bool:
    return any(place.is_relative_to(directory) for directory in directories for place in places)


def check_service(config: Config, paths: Paths, host: Host = Host()) -> str:
    """optillm-proxy-check.service"""
    wanted = config.monitoring
    lines = [
        [str(host.program), "check", *shlex.split(paths.flags), "--quiet"],
        [word for id in _UNTIMED for word in ("--without", id)],
        [
            "--damp",
            "@RUNTIME/state",
            "--fail-after",
            str(wanted.fail_after),
            "--well-after",
            str(wanted.well_after),
        ],
        *([["--textfile", wanted.textfile]] if wanted.textfile else []),
    ]
    # %t is the directory of what lasts until the next boot, which only systemd knows in the user's scope
    quoted = [
        [_systemd_word(word).replace("@RUNTIME/", f"%t/{paths.check_name}/") for word in line]
        for line in lines
    ]
    directory = Path(wanted.textfile).parent if wanted.textfile else None
    others = [Path(path) for path in (config.litellm.config, config.litellm.env) if path]
    seen = [
        paths.etc,
        paths.opt,
        paths.home,
        host.program,
        *others,
        *([directory] if directory else []),
    ]
    # a user's manager may not have the variables that led the one who installed to these directories
    xdg = {"XDG_CONFIG_HOME": paths.etc, "XDG_DATA_HOME": paths.opt, "XDG_STATE_HOME": paths.home}
    variables = [_systemd_word(f"{name}={place.parent}", dollar="$") for name, place in xdg.items()]
    return _render(
        "optillm-proxy-check.service.j2",
        name=paths.name,
        exec_start=" \\\n  ".join(map(" ".join, quoted)),
        environment=" ".join(variables) if paths.scope == "user" else "",
        scope=paths.scope,
        textfile_directory=directory and _systemd_word(f"-{directory}", dollar="$"),
        systemd=host.systemd,
        below_home=_lies_in(seen, HOMES),
        below_tmp=_lies_in(seen, _TEMPORARY),
    )


def check_timer(paths: Paths) -> str:
    """optillm-proxy-check.timer"""
    return _render("optillm-proxy-check.timer.j2", name=paths.name)


def check_command(service: str) -> list[str]:
    """The words of a check unit's ExecStart=, the program first; none where it has no such line."""
    found = re.search(r"^ExecStart=((?:.*\\\n)*.*)$", service, re.M)
    try:
        words = shlex.split(found[1].replace("\\\n", " ")) if found else []
    except ValueError:  # somebody edited it
        return []
    return [word.replace("%%", "%").replace("$$", "$") for word in words]


def check_textfile(service: str) -> Path | None:
    """Where a check unit writes its metrics."""
    words = check_command(service)
    return Path(words[words.index("--textfile") + 1]) if "--textfile" in words[:-1] else None


def bridge(config: Config, paths: Paths, release: Path, port: int) -> str:
    """The unit that hands connections of the deployment's socket to `port` while a hand-made service is replaced."""
    words = [str(release / ".venv/bin/python"), "-I", str(release / "guard/bridge.py")]
    return _render(
        "optillm-proxy-bridge.service.j2",
        unit=paths.sibling_unit,
        name=paths.name,
        port=port,
        seconds=config.timeouts.drain,
        program=" ".join(map(_systemd_word, words)),
        scope=paths.scope,
        below_home=_lies_in((paths.opt,), HOMES),
    )


def trial_unit(service: str, user: str) -> str:
    """The unit of a trial, made of the service's: started once, as the same user. Pure.

    While a hand-made service is replaced it serves beside an OptiLLM that starts, and comes first; a user's manager
    may not give that (no User= there).
    """
    once = re.sub(r"^Restart=.*$", "Restart=no", service.partition("\n[Install]")[0], flags=re.M)
    return re.sub(r"^User=.*$", f"User={user}\nNice=-10", once, flags=re.M)


def sibling(service: str) -> str:
    """The unit of a second process, made of the service's: the same in all that counts, and never enabled."""
    body = service.partition("\n[Install]")[0]
    return re.sub(
        r"^(Description=.*)$", r"\1 (while the other one drains)", body, count=1, flags=re.M
    )


def flags_in(service: str) -> set[str]:
    """The guard's flags that a unit's ExecStart= gives."""
    return set(re.findall(r"(?<=\s)--[a-z][a-z-]+(?=\s)", service))


def upstream_address(config: Config) -> str:
    """HOST:PORT of the upstream."""
    parts = urlsplit(config.upstream.base_url)
    host = "127.0.0.1" if parts.hostname == "localhost" else str(parts.hostname)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def upstream_socket(config: Config, paths: Paths) -> str:
    """optillm-proxy-upstream.socket"""
    return _render(
        "optillm-proxy-upstream.socket.j2",
        name=paths.upstream_name,
        upstream=upstream_address(config),
    )


def upstream_service(config: Config, paths: Paths, host: Host = Host()) -> str:
    """optillm-proxy-upstream.service"""
    return _render(
        "optillm-proxy-upstream.service.j2",
        name=paths.upstream_name,
        upstream=upstream_address(config),
        program=_systemd_word(str(host.socket_proxyd)),
        systemd=host.systemd,
    )


def socket(config: Config, paths: Paths) -> str:
    """optillm-proxy.socket"""
    values = {
        "name": paths.name,
        "host": config.listen.host,
        "port": config.listen.port,
        "scope": paths.scope,
    }
    return _render("optillm-proxy.socket.j2", **values)


def env(config: Config) -> str:
    """The env file's skeleton. It never holds a value: the operator's file does."""
    return _render("env.j2", base_url=config.upstream.base_url)


def proxy_config(config: Config) -> str:
    """~/.optillm/proxy_config.yaml of the service."""
    return _render(
        "proxy_config.yaml.j2",
        base_url=config.upstream.base_url,
        request_timeout=config.timeouts.request,
    )


def litellm(config: Config, paths: Paths) -> str:
    """The model_list entries that publish every enabled strategy of every base model."""
    return _render(
        "litellm.yaml.j2",
        published=config.published,
        url=config.url,
        key_variable=LITELLM_KEY_VARIABLE,
        proxy_key_file=paths.proxy_key,
        timeout=config.timeouts.request + LITELLM_GRACE,
    )


def configuration(config: Config) -> str:
    """A commented optictl.yaml."""
    listed = ", ".join(model_names.CODE_EXECUTION)
    return _render("optictl.yaml.j2", config=config, code_execution=listed)
