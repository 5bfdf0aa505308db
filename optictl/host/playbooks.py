"""Run a playbook of optictl's Ansible collection with ansible-runner."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from optictl.errors import FLEET_EXTRA
from optictl.host import files

COLLECTIONS = Path(__file__).resolve().parent.parent / "collections"
PLAYBOOKS = COLLECTIONS / "ansible_collections/optictl/optillm/playbooks"
#: Defaults for variables that the caller has not set. SSH must notice a dead host, and must not
#: prompt for an unknown host key or a password. Pipelining runs a module without a temporary file.
_DEFAULTS = {
    "ANSIBLE_PIPELINING": "1",
    "ANSIBLE_NOCOLOR": "1",
    "ANSIBLE_SSH_COMMON_ARGS": "-o ServerAliveInterval=5 -o ServerAliveCountMax=6 -o BatchMode=yes",
}


@dataclass(frozen=True)
class Hosts:
    """The hosts of a run, as the options of `ansible-playbook` with these names.

    `forks`: hosts at the same time; 0 is Ansible's default.
    """

    inventory: tuple[str, ...]
    limit: str = ""
    forks: int = 0
    vault_password_file: Path | None = None


@dataclass(frozen=True)
class PlaybookResult:
    """How a playbook ended. `code`: Ansible's exit code. `interrupted`: by Ctrl-C or SIGTERM."""

    code: int
    output: str
    interrupted: bool


def missing() -> list[str]:
    """The packages of the extra `fleet` that are not installed."""
    return [
        package for name, package in FLEET_EXTRA.items() if importlib.util.find_spec(name) is None
    ]


@contextmanager
def _stop_requested() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether Ctrl-C or SIGTERM arrived within the block."""
    signals = []

    def note(number: int, _frame: FrameType | None) -> None:
        signals.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(signals)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _environment() -> dict[str, str]:
    defaults = {name: os.environ.get(name, value) for name, value in _DEFAULTS.items()}
    collections = [str(COLLECTIONS), *filter(None, [os.environ.get("ANSIBLE_COLLECTIONS_PATH")])]
    # `uv tool install` does not add the tool's venv to PATH, and Ansible's programs are in that
    # venv
    programs = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    return {
        **defaults,
        "ANSIBLE_COLLECTIONS_PATH": ":".join(collections),
        "PATH": ":".join(programs),
    }


def _sources(hosts: Hosts) -> list[str]:
    """The inventories: files by their absolute path, lists of names such as `a,b` as they are."""
    return [name if "," in name else str(Path(name).absolute()) for name in hosts.inventory]


def _options(hosts: Hosts, variables: Path, check: bool) -> list[str]:
    """The options of ansible-playbook."""
    options = ["--extra-vars", f"@{variables}", *(["--check", "--diff"] if check else [])]
    if hosts.vault_password_file is not None:
        options += ["--vault-password-file", str(hosts.vault_password_file)]
    return options


def run(
    playbook: str,
    hosts: Hosts,
    variables: dict[str, Any],
    on_event: Callable[[dict[str, Any]], None],
    *,
    check: bool = False,
) -> PlaybookResult:
    """Run a playbook of the collection on these hosts.

    `on_event` gets every event of ansible-runner. `variables` become extra variables. `check`:
    Ansible's check mode, with differences. Files of ansible-runner are removed at the end.
    """
    import ansible_runner

    with files.scratch(0o700) as directory, _stop_requested() as stop:
        # in a file, because the length of an argument list is limited
        files.write(directory / "variables.json", json.dumps(variables), 0o600)

        def handle(event: dict[str, Any]) -> bool:
            on_event(event)
            return False  # do not write the events to disk

        ran = ansible_runner.run(
            private_data_dir=str(directory),
            playbook=str(PLAYBOOKS / f"{playbook}.yml"),
            inventory=_sources(hosts),
            envvars=_environment(),
            cmdline=shlex.join(_options(hosts, directory / "variables.json", check)),
            limit=hosts.limit or None,
            forks=hosts.forks or None,
            settings={"suppress_ansible_output": True, "pexpect_timeout": 1},
            suppress_env_files=True,
            quiet=True,
            event_handler=handle,
            cancel_callback=stop,
        )
        output = ran.stdout.read() if ran.stdout else ""
        return PlaybookResult(ran.rc if ran.rc is not None else 1, output, stop())
