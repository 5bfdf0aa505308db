"""Render the text of every file of a deployment from its configuration. Pure.

A template that uses an undefined name is an error.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from optictl.deployment import model_names
from optictl.deployment.paths import HOMES
from optictl.guard import strategy_options
from optictl.guard.invariants import REQUEST_THREADS

if TYPE_CHECKING:
    from optictl.deployment.config import Config
    from optictl.deployment.paths import Paths

#: The variable with the proxy key in LiteLLM's environment. Its name does not begin with OPTILLM_,
#: because the guard refuses such variables when both services share an env file.
LITELLM_KEY_VARIABLE = "LITELLM_OPTILLM_KEY"
#: Seconds that LiteLLM waits longer than the guard, to receive the guard's own error.
LITELLM_GRACE = 30
#: Seconds that systemd waits longer than the drain takes.
STOP_GRACE = 15


def template_directory() -> Path:
    """The directory `templates`: in the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "templates"
    return installed if installed.is_dir() else package.parent / "templates"


def schema_file() -> Path:
    """The JSON Schema of optictl.yaml, as this optictl has it on disk."""
    return template_directory() / "optictl.schema.json"


#: Text that YAML reads as text without quotes: not a number, a date or a reserved word.
_PLAIN = re.compile(
    r"(?!(?i:true|false|yes|no|on|off|null|y|n)$)[A-Za-z/][\w./@+-]*(:[\w./@+-]+)*"
    r"|\d+\.\d+\.\d[\w.]*",
    re.ASCII,
)


def _yaml(value: str | None) -> str:
    """A scalar for a YAML file, quoted when YAML would read it as something else."""
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


def _price(value: float) -> str:
    """A small number for a YAML file. Without a point, YAML 1.1 reads `1e-06` as text."""
    text = repr(value)
    return text.replace("e", ".0e") if "e" in text and "." not in text else text


def _flow(numbers: Mapping[str, object]) -> str:
    """A mapping of names to numbers, or to such mappings, for a YAML file."""
    parts = (
        f"{name}: {_flow(value) if isinstance(value, Mapping) else repr(value)}"
        for name, value in numbers.items()
    )
    return f"{{{', '.join(parts)}}}"


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
    environment.filters["price"] = _price
    environment.filters["flow"] = _flow
    return environment


def _render(template: str, **values: object) -> str:
    return _environment().get_template(template).render(values)


def page(template: str, **values: object) -> str:
    """Render one of templates/pages: a self-contained HTML page, with every value escaped."""
    environment = Environment(
        loader=FileSystemLoader(template_directory() / "pages"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)


@dataclass(frozen=True)
class Script:
    """A script of a page, and what its Content-Security-Policy allows it by."""

    text: Markup
    digest: str


def script(template: str) -> Script:
    """One of the scripts in templates/pages. No other script runs in a page that has its digest."""
    text = (template_directory() / "pages" / template).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    # a text of optictl, never one of a user
    return Script(Markup(text), f"sha256-{digest}")  # noqa: S704


def guard_arguments(config: Config, key_reference: str) -> list[str]:
    """The flags of the guard, every one explicit. `key_reference`: `@FILE`, never a key itself."""
    effect = config.effect
    flags = {
        "--host": config.listen.host,
        "--port": str(config.listen.port),
        "--base-url": config.upstream.base_url,
        "--approach": config.approach,
        "--model": config.model,
        "--optillm-api-key": key_reference,
        "--strategies": ",".join(config.strategies),
        "--base-models": ",".join(config.base_models),
        "--max-retries": str(config.upstream.max_retries),
        "--request-timeout": str(config.timeouts.request),
        "--drain-timeout": str(config.timeouts.drain),
        "--head-timeout": str(config.timeouts.head),
        "--body-timeout": str(config.timeouts.body),
        "--read-timeout": str(config.timeouts.read),
        "--max-connections": str(config.limits.max_connections),
        "--max-upstream-calls": str(config.limits.max_upstream_calls),
        "--parallel-calls": str(config.limits.parallel_calls),
        "--max-body-bytes": str(config.limits.max_body_bytes),
        "--max-in-flight": str(config.limits.max_in_flight),
        "--workers": str(config.workers),
        "--max-traces": str(config.limits.max_traces),
        "--choice": config.choice,
        "--strategy-options": strategy_options.flag(config.strategy_options),
        "--effect": ",".join(effect.fixes) or "none",
        "--budget-tokens": f"critique={effect.critique_tokens},rating={effect.rating_tokens}",
        "--answer-tokens": str(effect.answer_tokens),
        "--stream-calls": "yes" if config.streaming.calls else "no",
        "--progress": config.streaming.progress,
    }
    return [word for flag in flags.items() for word in flag]


def command(
    config: Config, release: Path, key_reference: str, *more: str, flags: Sequence[str] = ()
) -> list[str]:
    """The command line of the service, for the release in the directory `release`.

    `more`: additional flags of a unit. `flags`: the flags that the guard of that release knows,
    empty for all. An older guard uses its defaults for the others.
    """
    words = [*guard_arguments(config, key_reference), *more]
    pairs = zip(words[::2], words[1::2], strict=True)
    known = [word for pair in pairs if not flags or pair[0] in flags for word in pair]
    return [str(release / ".venv/bin/python"), "-I", str(release / "guard"), *known]


def _literal(value: object) -> str:
    """A value for an option in which systemd expands only % specifiers."""
    return str(value).replace("%", "%%")


def _systemd_word(word: str, dollar: str = "$$") -> str:
    """A word of ExecStart=, quoted when systemd would split or expand it.

    For Environment=, pass `dollar="$"`.
    """
    word = _literal(word).replace("$", dollar)
    if re.fullmatch(r"[A-Za-z0-9@%$_./:,=+&|-]+", word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _exec_start(words: Sequence[str]) -> str:
    """The command line in lines: the main flags first, then one flag per line, for short diffs."""
    lines = [" ".join(words[:3]), " ".join(words[3:15])]
    lines += [" ".join(words[i : i + 2]) for i in range(15, len(words), 2)]
    return " \\\n  ".join(lines)


@dataclass(frozen=True)
class Host:
    """The facts about a machine that units depend on. The defaults do not need a machine.

    `systemd`: the version that will read the unit. `interpreter`: the prefix of a Python outside
    /usr, which a sealed root must contain, or None. `release`: the directory to start instead of
    the active release. `flags`: the flags that its guard knows. `program`: the optictl that the
    monitoring unit runs. `socket_proxyd`: the program of the relay to the upstream.
    """

    systemd: int = 252
    interpreter: Path | None = None
    release: Path | None = None
    flags: tuple[str, ...] = ()
    program: Path = Path("/usr/local/bin/optictl")
    socket_proxyd: Path = Path("/usr/lib/systemd/systemd-socket-proxyd")


def is_sealed(config: Config, paths: Paths) -> bool:
    """Whether the service has no network and an empty root.

    Only the system's systemd can do that.
    """
    return config.isolation == "sealed" and paths.scope == "system"


def home(config: Config, paths: Paths) -> Path:
    """The HOME of the service. Its name is a digest of its proxy_config.yaml.

    A new file has a new directory. The rename of the unit therefore switches both in one step.
    """
    return paths.home / hashlib.sha256(proxy_config(config).encode()).hexdigest()[:12]


def relay_socket(paths: Paths) -> Path:
    """The socket of the relay, through which a sealed service reaches its upstream."""
    return Path(f"/run/{paths.upstream_name}/socket")


def unit(config: Config, paths: Paths, host: Host = Host()) -> str:
    """The text of optillm-proxy.service."""
    sealed = is_sealed(config, paths)
    release = host.release or paths.current
    relay = ["--upstream-socket", str(relay_socket(paths))] if sealed else []
    name = ["--deployment", paths.name]
    own = ["--upstream-env", "@CREDENTIALS/upstream_env", *relay, *name]
    words = command(config, release, "@CREDENTIALS/proxy_key", *own, flags=host.flags)
    # systemd 247 sets the variable; the specifier %d needs 250
    directory = "@${CREDENTIALS_DIRECTORY}/"
    quoted = [_systemd_word(word).replace("@CREDENTIALS/", directory) for word in words]
    places = (paths.opt, paths.home)
    # the link `current` does not exist before the first release is active, and the service cannot
    # start with a missing path
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
        tasks_max=_tasks_max(config),
        files_max=_files_max(config),
        scope=paths.scope,
        sealed=sealed,
        root_directory=_literal(paths.root_directory),
        seen=" ".join(_systemd_word(str(p), dollar="$") for p in seen),
        interpreter=host.interpreter and _systemd_word(str(host.interpreter), dollar="$"),
        systemd=host.systemd,
        upstream_name=paths.upstream_name,
        # ProtectHome= would hide a deployment below a home from its own service
        below_home=_lies_in(places, HOMES),
    )


def _tasks_max(config: Config) -> int:
    """The threads that the service may have.

    A running request has those of its strategy and one for each parallel call, a waiting request
    has none.
    """
    per_request = REQUEST_THREADS + config.limits.parallel_calls
    return (128 + per_request * config.limits.max_in_flight) * config.workers


def _files_max(config: Config) -> int:
    """The files that a worker may open: connections of clients and to the upstream, and its own."""
    limits = config.limits
    calls = limits.max_in_flight * limits.parallel_calls
    return max(4096, 512 + limits.max_connections + calls)


#: The directories that PrivateTmp= hides.
_TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108  (nothing is written there)
#: Checks that the timer does not run. Its unit says why.
_UNTIMED = ("release.starts", "credential.mode")


def _lies_in(places: Iterable[Path], directories: Iterable[Path]) -> bool:
    return any(place.is_relative_to(directory) for directory in directories for place in places)


def check_service(config: Config, paths: Paths, host: Host = Host()) -> str:
    """The text of optillm-proxy-check.service."""
    textfile = config.monitoring.textfile
    directory = Path(textfile).parent if textfile else None
    litellm_files = [Path(path) for path in (config.litellm.config, config.litellm.env) if path]
    visible = [paths.etc, paths.opt, paths.home, host.program, *litellm_files]
    visible += [directory] if directory else []
    # a user's systemd may not have the XDG variables of the shell that ran `install`
    xdg = {"XDG_CONFIG_HOME": paths.etc, "XDG_DATA_HOME": paths.opt, "XDG_STATE_HOME": paths.home}
    variables = [_systemd_word(f"{name}={place.parent}", dollar="$") for name, place in xdg.items()]
    return _render(
        "optillm-proxy-check.service.j2",
        name=paths.name,
        exec_start=" \\\n  ".join(map(" ".join, _timed_check(config, paths, host))),
        environment=" ".join(variables) if paths.scope == "user" else "",
        scope=paths.scope,
        textfile_directory=directory and _systemd_word(f"-{directory}", dollar="$"),
        systemd=host.systemd,
        below_home=_lies_in(visible, HOMES),
        below_tmp=_lies_in(visible, _TEMPORARY),
    )


def _timed_check(config: Config, paths: Paths, host: Host) -> list[list[str]]:
    """The command of the timer, as lines of words that systemd reads as they are."""
    monitoring = config.monitoring
    lines = [
        [str(host.program), "check", *shlex.split(paths.flags), "--quiet"],
        [word for id in _UNTIMED for word in ("--without", id)],
        [
            "--damp",
            "@RUNTIME/state",
            "--fail-after",
            str(monitoring.fail_after),
            "--well-after",
            str(monitoring.well_after),
        ],
        *([["--textfile", monitoring.textfile]] if monitoring.textfile else []),
    ]
    # %t is the runtime directory. For a user's unit only systemd knows its path
    runtime = f"%t/{paths.check_name}/"
    return [[_systemd_word(word).replace("@RUNTIME/", runtime) for word in line] for line in lines]


def check_timer(paths: Paths) -> str:
    """The text of optillm-proxy-check.timer."""
    return _render("optillm-proxy-check.timer.j2", name=paths.name)


def check_command(service: str) -> list[str]:
    """The words of ExecStart= in the monitoring unit, the program first.

    Empty without that line.
    """
    line = re.search(r"^ExecStart=((?:.*\\\n)*.*)$", service, re.M)
    try:
        words = shlex.split(line[1].replace("\\\n", " ")) if line else []
    except ValueError:  # edited by hand
        return []
    return [word.replace("%%", "%").replace("$$", "$") for word in words]


def check_textfile(service: str) -> Path | None:
    """The file to which the monitoring unit writes its metrics, or None."""
    words = check_command(service)
    return Path(words[words.index("--textfile") + 1]) if "--textfile" in words[:-1] else None


def bridge(config: Config, paths: Paths, release: Path, port: int) -> str:
    """The text of the bridge unit, which serves while a hand-made service is replaced.

    It passes connections of the deployment's socket to `port` of this machine.
    """
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
    """The unit of a trial, from the text of the service's unit: started once, as the same user.

    While a hand-made service is replaced, the trial serves and a second OptiLLM starts. A negative
    Nice= gives the trial priority. Units of a user have no User= and may not set it.
    """
    once = re.sub(r"^Restart=.*$", "Restart=no", service.partition("\n[Install]")[0], flags=re.M)
    return re.sub(r"^User=.*$", f"User={user}\nNice=-10", once, flags=re.M)


def sibling(service: str) -> str:
    """The unit of the second process, from the text of the service's unit. It is never enabled."""
    body = service.partition("\n[Install]")[0]
    return re.sub(
        r"^(Description=.*)$", r"\1 (while the other one drains)", body, count=1, flags=re.M
    )


def flags_in(service: str) -> set[str]:
    """The flags of the guard in the text of a unit."""
    return set(re.findall(r"(?<=\s)--[a-z][a-z-]+(?=\s)", service))


def upstream_address(config: Config) -> str:
    """HOST:PORT of the upstream, as ListenStream= and systemd-socket-proxyd take it."""
    parts = urlsplit(config.upstream.base_url)
    host = "127.0.0.1" if parts.hostname == "localhost" else str(parts.hostname)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def upstream_socket(config: Config, paths: Paths) -> str:
    """The text of optillm-proxy-upstream.socket."""
    return _render(
        "optillm-proxy-upstream.socket.j2",
        name=paths.upstream_name,
        upstream=upstream_address(config),
    )


def upstream_service(config: Config, paths: Paths, host: Host = Host()) -> str:
    """The text of optillm-proxy-upstream.service."""
    return _render(
        "optillm-proxy-upstream.service.j2",
        name=paths.upstream_name,
        upstream=upstream_address(config),
        program=_systemd_word(str(host.socket_proxyd)),
        systemd=host.systemd,
    )


def socket(config: Config, paths: Paths) -> str:
    """The text of optillm-proxy.socket."""
    values = {
        "name": paths.name,
        "host": config.listen.host,
        "port": config.listen.port,
        "scope": paths.scope,
    }
    return _render("optillm-proxy.socket.j2", **values)


def env(config: Config) -> str:
    """The env file that `init` creates. It has no values; the operator adds them."""
    return _render("env.j2", base_url=config.upstream.base_url)


def proxy_config(config: Config) -> str:
    """The text of ~/.optillm/proxy_config.yaml of the service."""
    return _render(
        "proxy_config.yaml.j2",
        base_url=config.upstream.base_url,
        request_timeout=config.timeouts.request,
    )


@dataclass(frozen=True)
class Price:
    """The prices of one token of a base model: LiteLLM's name of the price -> dollars.

    `source`: where they are from, for a comment.
    """

    values: Mapping[str, float]
    source: str


@dataclass(frozen=True)
class _Entry:
    name: str
    target: str
    base_model: str
    price: Price | None


def litellm(config: Config, paths: Paths, prices: Mapping[str, Price] = {}) -> str:
    """A file for LiteLLM to include: every enabled strategy on every base model.

    `prices`: those of the base models that are known.
    """
    entries = []
    for name, target in config.published.items():
        parts = model_names.split(target, config.strategies, config.base_models)
        base = parts[1] if parts else target
        entries.append(_Entry(name, target, base, prices.get(base)))
    return _render(
        "litellm.yaml.j2",
        entries=entries,
        unpriced=[base for base in config.base_models if base not in prices],
        url=config.url,
        key_variable=LITELLM_KEY_VARIABLE,
        proxy_key_file=paths.proxy_key,
        timeout=config.timeouts.request + LITELLM_GRACE,
    )


def configuration(config: Config) -> str:
    """A commented optictl.yaml."""
    listed = ", ".join(model_names.CODE_EXECUTION)
    return _render("optictl.yaml.j2", config=config, code_execution=listed)


def artefact(name: str, config: Config, paths: Paths) -> str:
    """The text that `optictl render-NAME` prints."""
    texts: dict[str, Callable[[], str]] = {
        "unit": lambda: unit(config, paths),
        "socket": lambda: socket(config, paths),
        "upstream-socket": lambda: upstream_socket(config, paths),
        "upstream-service": lambda: upstream_service(config, paths),
        "check-unit": lambda: check_service(config, paths),
        "check-timer": lambda: check_timer(paths),
        "env": lambda: env(config),
        "proxy-config": lambda: proxy_config(config),
        "litellm": lambda: litellm(config, paths),
    }
    return texts[name]()
