"""Find a hand-made service and read its file_reader. This module never writes."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from optictl.deployment import manifest
from optictl.deployment.paths import Paths
from optictl.guard import envfile
from optictl.host import files
from optictl.host.systemd import Systemd, Unit
from optictl.takeover import command, unitfile
from optictl.takeover.handmade import HandMade, Provider, secrets_of
from optictl.takeover.unitfile import Settings, Unreadable

#: Directories of unit files below a root, highest priority first. Source: systemd.unit(5).
_SYSTEM_PLACES = (
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
)
_USER_PLACES = (
    "/etc/systemd/user",
    "/run/systemd/user",
    "/usr/local/lib/systemd/user",
    "/usr/lib/systemd/user",
)
#: The first line of a unit from any version of optictl.
_RENDERED = re.compile(r"\A#.*rendered by optictl", re.M)
#: Field -> (flag, variables that set its default, OptiLLM's own default).
_FIELDS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "host": ("--host", ("OPTILLM_HOST",), "127.0.0.1"),
    "port": ("--port", ("OPTILLM_PORT",), "8000"),
    # without an address from OptiLLM, the OpenAI client uses its own variable
    "base_url": ("--base-url", ("OPTILLM_BASE_URL", "OPENAI_BASE_URL"), ""),
    "approach": ("--approach", ("OPTILLM_APPROACH",), "auto"),
    "model": ("--model", ("OPTILLM_MODEL",), "gpt-4o-mini"),
    "proxy_key": ("--optillm-api-key", ("OPTILLM_API_KEY",), ""),
}


@dataclass
class _FileReader:
    """Reads files, and collects what could not be read and other problems."""

    denied: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def text(self, path: Path) -> str | None:
        """The text of a file. None when it is missing or not readable; the latter is recorded."""
        try:
            return files.read(path)
        except PermissionError:
            self.denied.append(path)
        except OSError as error:
            self.problems.append(f"{path} cannot be read: {error.strerror}")
        return None

    def listed(self, directory: Path, pattern: str) -> list[Path]:
        """The matching entries of a directory. Empty when it is not readable, which is recorded."""
        try:
            return sorted(directory.glob(pattern))
        except PermissionError:
            self.denied.append(directory)
            return []


def read(paths: Paths) -> HandMade | None:
    """The hand-made service with the name of this deployment. None when there is none.

    Raises:
        PermissionError: there is a unit, and this user may not read it.
    """
    path = _unit_file(paths)
    if path == paths.service and _is_known(paths):
        return None  # the usual case, without a call of systemctl
    shown = _shown(paths)
    if path is None and shown is not None and shown.loaded and shown.fragment_path:
        path = Path(shown.fragment_path)  # from a generator or systemd-run
    text = files.read(path) if path is not None else None
    # an empty unit file masks the unit
    if path is None or text is None or not text.strip() or _RENDERED.search(text):
        return None
    return _gathered(paths, paths.service_unit, path, text, shown)


def others(paths: Paths) -> list[HandMade]:
    """Other services in the directory of units that run OptiLLM without optictl."""
    services = []
    for path in _FileReader().listed(paths.units, "*.service"):
        if path.name == paths.service_unit or files.file_facts(path).kind != "file":
            continue
        try:
            text = files.read(path)
        except OSError:
            continue
        if text and not _RENDERED.search(text):
            service = _gathered(paths, path.name, path, text, None)
            services += [service] if service.runs_optillm else []
    return services


def _is_known(paths: Paths) -> bool:
    """Whether optictl's manifest contains the unit."""
    return str(paths.service) in manifest.parse(files.read(paths.manifest)).files


def _shown(paths: Paths) -> Unit | None:
    """The unit as systemd reports it. None without systemd, or for a deployment below --root."""
    if paths.is_private:
        return None
    systemd = Systemd(paths.scope)
    return systemd.show(paths.service_unit) if systemd.available() else None


def _places(paths: Paths) -> list[Path]:
    """The directories of unit files, highest priority first."""
    if paths.scope == "user":
        return [paths.units, *map(Path, _USER_PLACES)]
    root = paths.units.parents[2]
    return [paths.units, *(root / place for place in _SYSTEM_PLACES)]


def _unit_file(paths: Paths) -> Path | None:
    """The effective unit file. None when there is none, or the unit is masked."""
    for directory in _places(paths):
        path = directory / paths.service_unit
        if files.file_facts(path).kind != "missing":
            # a mask hides unit files in directories with lower priority
            return None if path.resolve() == Path("/dev/null") else path
    return None


def _drop_ins(paths: Paths, unit: str, shown: Unit | None, file_reader: _FileReader) -> list[Path]:
    """The drop-ins that systemd will read at its next reload, and others that it has read."""
    *own, kind = unitfile.drop_in_directories(unit)
    places = _places(paths)
    directories = [place / name for place in places for name in own] + [
        place / kind for place in places
    ]
    on_disk = unitfile.in_order(
        [str(d) for d in directories],
        lambda d: [p.name for p in file_reader.listed(Path(d), "*.conf")],
    )
    read_by_systemd = shown.drop_in_paths if shown is not None else ()
    names = {Path(path).name: path for path in (*read_by_systemd, *on_disk)}
    return [
        Path(names[name])
        for name in sorted(names)
        if files.file_facts(Path(names[name])).kind != "missing"
    ]


def _account(name: str) -> tuple[str, Path | None]:
    """(user name, home) of a user name or uid. (name, None) for an unknown user."""
    try:
        entry = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        return name, None
    return entry.pw_name, Path(entry.pw_dir)


def _manager_home(paths: Paths) -> Path:
    return Path("/root") if paths.scope == "system" else Path.home()


def _specifiers(paths: Paths, unit: str) -> dict[str, str]:
    """The values of % specifiers that do not depend on the machine. Source: systemd.unit(5)."""
    stem = unit.rpartition(".")[0]
    prefix, _, instance = stem.partition("@")
    home = _manager_home(paths)
    system = {
        "E": "/etc",
        "S": "/var/lib",
        "C": "/var/cache",
        "L": "/var/log",
        "t": "/run",
        "u": "root",
        "U": "0",
    }
    user = {"E": f"{home}/.config", "S": f"{home}/.local/state", "C": f"{home}/.cache"}
    return {
        "n": unit,
        "N": stem,
        "p": prefix,
        "P": prefix,
        "i": instance,
        "I": instance,
        "j": prefix.rpartition("-")[2],
        "J": prefix.rpartition("-")[2],
        "h": str(home),
        "T": "/tmp",  # noqa: S108  (nothing is written there)
        "V": "/var/tmp",  # noqa: S108  (nothing is written there)
        **(system if paths.scope == "system" else user),
    }


def _gathered(paths: Paths, unit: str, path: Path, text: str, shown: Unit | None) -> HandMade:
    file_reader = _FileReader()
    drop_ins = []
    for drop_in in _drop_ins(paths, unit, shown, file_reader):
        if (own := file_reader.text(drop_in)) is not None:
            drop_ins.append((drop_in, own))
    settings = unitfile.settings((str(path), text), *((str(p), t) for p, t in drop_ins))
    file_reader.problems += settings.problems
    table = _specifiers(paths, unit)
    service = HandMade(
        unit=unit,
        path=path,
        text=text,
        drop_ins=tuple(drop_ins),
        settings=settings,
        enabled=shown.unit_file_state if shown else "",
        active=shown.active if shown else False,
        main_pid=shown.main_pid if shown else 0,
    )
    service = _with_account(service, paths, table)
    service = _with_environment(service, table, file_reader)
    service = _with_command(service, table, file_reader)
    service = _with_providers(service, file_reader)
    return replace(
        service,
        problems=tuple(dict.fromkeys(file_reader.problems)),
        denied=tuple(dict.fromkeys(file_reader.denied)),
    )


def _value(settings: Settings, name: str, table: Mapping[str, str]) -> str:
    entry = settings.last(name)
    return unitfile.specified(entry.value, table) if entry else ""


def _with_account(service: HandMade, paths: Paths, table: Mapping[str, str]) -> HandMade:
    if paths.scope == "user":
        return replace(service, user=pwd.getpwuid(os.geteuid()).pw_name, home=Path.home())
    named = _value(service.settings, "User", table)
    if not named and unitfile.flag(service.settings.last("DynamicUser")):
        return replace(service, user=service.unit.rpartition(".")[0], home=None)
    user, home = _account(named or "root")
    return replace(service, user=user, home=home)


def _with_environment(
    service: HandMade, table: Mapping[str, str], file_reader: _FileReader
) -> HandMade:
    """Set the environment: HOME and USER of the account, then Environment=, then the env files."""
    settings = service.settings
    values, places, problems = unitfile.assigned(settings.all("Environment"), table)
    file_reader.problems += problems
    own = {"HOME": str(service.home), "USER": service.user} if service.home else {}
    values = {**own, **values}
    env_files: list[Path] = []
    for entry in settings.all("EnvironmentFile"):
        for path in _env_files(unitfile.specified(entry.value, table), entry.where, file_reader):
            env_files.append(path)
            for name, value in envfile.read(
                (file_reader.text(path) or "").encode()
            ).variables.items():
                values[name], places[name] = value, str(path)
    for entry in settings.all("UnsetEnvironment"):
        for word in _words(entry.value, file_reader, entry.where):
            name, sign, value = word.partition("=")
            if not sign or values.get(name) == value:
                values.pop(name, None)
    passed = [
        w for e in settings.all("PassEnvironment") for w in _words(e.value, file_reader, e.where)
    ]
    return replace(
        service,
        environment=values,
        where=places,
        env_files=tuple(dict.fromkeys(env_files)),
        passed=tuple(passed),
    )


def _words(value: str, file_reader: _FileReader, where: str) -> list[str]:
    try:
        return unitfile.words(value)
    except Unreadable as why:
        file_reader.problems.append(f"{where}: {why}")
        return []


def _env_files(value: str, where: str, file_reader: _FileReader) -> list[Path]:
    """The files of an EnvironmentFile= line, which may be a pattern."""
    name = value.removeprefix("-")
    if not name.startswith("/"):
        file_reader.problems.append(
            f"{where}: EnvironmentFile= is not an absolute path: systemd ignores it"
        )
        return []
    if set(name) & set("*?["):
        return file_reader.listed(Path("/"), name.lstrip("/"))
    path = Path(name)
    try:
        missing = files.file_facts(path).kind == "missing"
    except PermissionError:
        file_reader.denied.append(path)
        return []
    if missing and not value.startswith("-"):
        file_reader.problems.append(f"{where}: {path} is missing: systemd does not start the unit")
    return [] if missing else [path]


def _exec_lines(
    service: HandMade, table: Mapping[str, str], file_reader: _FileReader
) -> list[unitfile.ExecLine]:
    lines: list[unitfile.ExecLine] = []
    for entry in service.settings.all("ExecStart"):
        try:
            lines += unitfile.exec_lines(entry, table)
        except Unreadable as why:
            file_reader.problems.append(f"{entry.where}: ExecStart= cannot be read: {why}")
    if not lines:
        file_reader.problems.append(f"{service.path} has no readable ExecStart=")
    return lines


def _with_command(
    service: HandMade, table: Mapping[str, str], file_reader: _FileReader
) -> HandMade:
    """Read ExecStart=: the program, its flags, and the variables for their defaults."""
    directory = _value(service.settings, "WorkingDirectory", table).removeprefix("-")
    directory = str(service.home or "/") if directory == "~" else directory
    lines = _exec_lines(service, table, file_reader)
    if not lines:
        return replace(service, directory=Path(directory) if directory else None)

    def script(name: str) -> str | None:
        return file_reader.text(Path(name)) if name.startswith("/") else None

    # of several commands (Type=oneshot), use the one that starts OptiLLM
    commands = [
        command.started(
            unitfile.expanded(line, service.environment), service.environment, directory, script
        )
        for line in lines
    ]
    chosen = next((started for started in commands if started.is_optillm), commands[-1])
    if not chosen.is_optillm:
        file_reader.problems.append(
            f"{lines[-1].where}: ExecStart= does not start OptiLLM in a recognizable way"
        )
    service = replace(
        service,
        program=chosen.words,
        wrappers=chosen.wrappers,
        runs_optillm=chosen.is_optillm,
        environment=chosen.environment,
        where={**service.where, **chosen.places},
        directory=Path(chosen.directory) if chosen.directory else None,
    )
    return (
        _with_flags(service, chosen.arguments, lines[-1].where, file_reader)
        if chosen.is_optillm
        else service
    )


def _with_flags(
    service: HandMade, arguments: tuple[str, ...], where: str, file_reader: _FileReader
) -> HandMade:
    given, problems = command.flags(arguments)
    file_reader.problems += problems
    values: dict[str, Any] = {}
    places = dict(service.where)
    for name, (flag, variables, default) in _FIELDS.items():
        variable = next((v for v in variables if service.environment.get(v)), "")
        value, place = default, ""
        if given.get(flag):
            value, place = given[flag], f"{flag} in {where}"
        elif variable:
            value, place = (
                service.environment[variable],
                f"{variable} in {service.where.get(variable, where)}",
            )
        if command.UNKNOWN in value:
            file_reader.problems.append(f"{place}: its value is the output of a program")
            value = ""
        values[name], places[name] = value, place
    port = values.pop("port")
    if not (port.isdecimal() and 0 < int(port) < 65536):
        file_reader.problems.append(
            f"{places['port']}: not a port number" if port else "its port is not known"
        )
        port = None
    extra = [flag for flag in given if flag not in {f for f, _, _ in _FIELDS.values()}]
    hidden = [secret for flag in extra for secret in secrets_of(flag, given[flag])]
    return replace(
        service,
        **values,
        port=port and int(port),
        where=places,
        extra_flags=tuple(extra),
        other_secrets=tuple(hidden),
    )


def _with_providers(service: HandMade, file_reader: _FileReader) -> HandMade:
    """Read OptiLLM's files below its HOME and its working directory."""
    plugins = (
        file_reader.listed(service.directory / "optillm" / "plugins", "*.py")
        if service.directory
        else []
    )
    service = replace(service, plugins=tuple(plugins), version=_version(service, file_reader))
    home = service.environment.get("HOME")
    if not home or not service.runs_optillm:
        return service
    for name in ("proxy_config.yaml", "proxy_config.yml"):
        path = Path(home) / ".optillm" / name
        denied = len(file_reader.denied)
        text = file_reader.text(path)
        if text is not None or len(file_reader.denied) > denied:
            providers, keys = _providers(text)
            return replace(
                service,
                provider_config=path,
                provider_text=text,
                providers=providers,
                provider_keys=keys,
            )
    return service


def _providers(text: str | None) -> tuple[tuple[Provider, ...], tuple[str, ...]]:
    """The providers in a proxy_config.yaml, and the literal keys in it."""
    import yaml  # most commands do not need it

    try:
        data: Any = yaml.safe_load(text or "")
    except (yaml.YAMLError, ValueError, RecursionError):
        return (), ()
    listed = data.get("providers") if isinstance(data, dict) else None
    entries = [e for e in listed if isinstance(e, dict)] if isinstance(listed, list) else []
    providers = tuple(
        Provider(str(e.get("name", n)), str(e.get("base_url", "")), _model_map(e.get("model_map")))
        for n, e in enumerate(entries, 1)
    )
    keys = [e["api_key"] for e in entries if isinstance(e.get("api_key"), str)]
    # a reference to a variable is not a secret
    return providers, tuple(key for key in keys if key and not key.startswith("${"))


def _model_map(model_map: Any) -> dict[str, str]:
    if not isinstance(model_map, dict):
        return {}
    return {str(name): str(target) for name, target in model_map.items()}


def _version(service: HandMade, file_reader: _FileReader) -> str:
    """The version of its OptiLLM, from the metadata in its virtual environment. "" if unknown."""
    program = Path(service.program[0]) if service.program else Path()
    if not program.is_absolute():
        program = (service.directory or Path()) / program
    if not program.is_absolute():
        return ""
    metadata = file_reader.listed(
        program.parent.parent, "lib/python3*/site-packages/optillm-*.dist-info"
    )
    return metadata[0].name.removeprefix("optillm-").removesuffix(".dist-info") if metadata else ""
