"""Ansible: a playbook of optictl's collection, run by ansible-runner."""

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
#: Where the caller has not said otherwise: a host that died is noticed, nobody is asked at a terminal that is not there
#: (an unknown host key, a password), and a module need not be a file first.
_DEFAULTS = {
    "ANSIBLE_PIPELINING": "1",
    "ANSIBLE_NOCOLOR": "1",
    "ANSIBLE_SSH_COMMON_ARGS": "-o ServerAliveInterval=5 -o ServerAliveCountMax=6 -o BatchMode=yes",
}


@dataclass(frozen=True)
class Hosts:
    """Which hosts, and how Ansible is told of them: its own options."""

    inventory: tuple[str, ...]
    limit: str = ""
    forks: int = 0
    vault_password_file: Path | None = None


@dataclass(frozen=True)
class PlaybookResult:
    """How a playbook ended: Ansible's exit code, what it printed, whether it was interrupted."""

    code: int
    output: str
    interrupted: bool


def missing() -> list[str]:
    """What the extra `fleet` would bring and is not there."""
    return [
        package for name, package in FLEET_EXTRA.items() if importlib.util.find_spec(name) is None
    ]


@contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM came meanwhile."""
    asked = []

    def note(number: int, _frame: FrameType | None) -> None:
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _environment() -> dict[str, str]:
    found = {name: os.environ.get(name, value) for name, value in _DEFAULTS.items()}
    collections = [str(COLLECTIONS), *filter(None, [os.environ.get("ANSIBLE_COLLECTIONS_PATH")])]
    # a tool's own environment is not on the PATH, and Ansible's programs are in it
    programs = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    return {**found, "ANSIBLE_COLLECTIONS_PATH": ":".join(collections), "PATH": ":".join(programs)}


def run(
    playbook: str,
    hosts: Hosts,
    variables: dict[str, Any],
    see: Callable[[dict[str, Any]], None],
    *,
    check: bool = False,
) -> PlaybookResult:
    """Run one of the collection's playbooks; `see` is told every event. What runner writes is gone afterwards.

    `check`: Ansible's check mode, with differences.
    """
    import ansible_runner

    with files.scratch(0o700) as directory, _asked_to_stop() as stop:
        # in a file: an argument list has an end
        files.write(directory / "variables.json", json.dumps(variables), 0o600)
        options = [
            "--extra-vars",
            f"@{directory / 'variables.json'}",
            *(["--check", "--diff"] if check else []),
        ]
        if hosts.vault_password_file is not None:
            options += ["--vault-password-file", str(hosts.vault_password_file)]

        def handle(event: dict[str, Any]) -> bool:
            see(event)
            return False  # nothing reads the events from the disk

        ran = ansible_runner.run(
            private_data_dir=str(directory),
            playbook=str(PLAYBOOKS / f"{playbook}.yml"),
            inventory=[
                name if "," in name else str(Path(name).absolute()) for name in hosts.inventory
            ],
            envvars=_environment(),
            cmdline=shlex.join(options),
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
