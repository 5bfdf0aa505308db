"""The commands of a fleet: read every host, prepare wheels on the controller, run Ansible."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from optictl.deployment import config_yaml
from optictl.deployment.config import Config
from optictl.errors import ConfigError, MissingFact, NoHosts
from optictl.fleet import playbook_events
from optictl.fleet.event_records import Failure
from optictl.fleet.playbook_events import PlaybookEvents
from optictl.host import playbooks, wheels
from optictl.host.playbooks import Hosts, PlaybookResult
from optictl.releases import wheelhouse
from optictl.releases.targets import target
from optictl.results import Result

Say = Callable[[str], None]


@dataclass(frozen=True)
class Report:
    """The results of a command, one per host. `interrupted`: by Ctrl-C or SIGTERM."""

    results: list[Result]
    interrupted: bool = False

    @property
    def code(self) -> int:
        """The exit code: see `playbook_events.code`."""
        return playbook_events.code(self.results, self.interrupted)

    @property
    def remaining(self) -> list[str]:
        """The hosts that are not done."""
        return [r.id for r in self.results if r.status != "pass"]


def batches(text: str) -> list[int | str]:
    """`1,25%` -> [1, "25%"], for Ansible's `serial`.

    Raises:
        ValueError: the text is not a list of numbers and percentages.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch(r"[1-9]\d*%?", word) for word in words):
        raise ValueError(text)
    return [word if word.endswith("%") else int(word) for word in words]


def _play(
    playbook: str, hosts: Hosts, variables: dict[str, Any], say: Say, *, check: bool = False
) -> tuple[PlaybookEvents, PlaybookResult]:
    events = PlaybookEvents(foreseen=check)

    def on_event(event: dict[str, Any]) -> None:
        if line := events.add(event):
            say(line)

    ended = playbooks.run(playbook, hosts, variables, on_event, check=check)
    if not events.hosts and not ended.interrupted:
        where = ", ".join(hosts.inventory)
        what = (
            f"no host of {where} matches --limit {hosts.limit}"
            if hosts.limit
            else f"Ansible finds no host in {where}"
        )
        raise NoHosts(
            what,
            remedy=f"use a host of {where} in --limit"
            if hosts.limit
            else f"add a host to {where}, as docs/guides/fleet.md shows",
            detail="\n".join(playbook_events.complaints(ended.output)),
        )
    return events, ended


def _read_hosts(
    hosts: Hosts, variables: dict[str, Any], say: Say
) -> tuple[PlaybookEvents, Report | None]:
    """Read the facts of every host.

    Returns a report when a host cannot have the deployment. Then nothing is changed on any host.
    """
    events, ended = _play("look", hosts, variables, say)
    for host in events.hosts.values():
        problems = _problems(host.requested.config) if host.requested else []
        if problems:
            host.failed = Failure(
                f"optillm_proxy_config: {'; '.join(problems)}",
                remedy="edit it in the inventory; optictl config schema prints all keys and values",
                rc=playbook_events.INVALID,
            )
    if not ended.interrupted and not any(host.bad for host in events.hosts.values()):
        return events, None
    names = sorted(events.hosts)
    bad = {name: host for name, host in events.hosts.items() if host.bad}
    return events, Report(
        playbook_events.outcome(names, bad, ended.interrupted, playbook_events.PRESENT),
        ended.interrupted,
    )


def _problems(inventory_config: object) -> list[str]:
    """The problems of an inventory's optillm_proxy_config. Empty when there is none."""
    if inventory_config is None:
        return []
    try:
        config_yaml.parse(yaml.safe_dump(inventory_config), "optillm_proxy_config")
    except ConfigError as error:
        # without line numbers: they are not those of the inventory
        return [f"{p.path}: {p.message}" if p.path else p.message for p in error.problems]
    return []


def _prepared(events: PlaybookEvents, source: Path | None, say: Say) -> dict[str, Any]:
    """Prepare a wheelhouse for every kind of host. Returns variables for the playbooks."""
    made: dict[str, dict[str, Any]] = {}
    needed: dict[str, str] = {}
    for host in events.hosts.values():
        info, requested = host.host_info, host.requested
        if info is None or requested is None:
            raise MissingFact(
                f"Ansible reported no facts of the host {host.name}",
                remedy=f"run it again; optictl fleet status --limit {host.name} shows its state",
            )
        kind = target(info.architecture, info.python.version, info.glibc)
        version = requested.version or Config().optillm.version
        key = f"{kind.name} {version} {requested.profile}"
        if key not in made:
            wanted = wheelhouse.Request(kind, (version,), requested.profile)
            directory = wheels.cache() / kind.name
            made[key] = wheelhouse.make(directory, wanted, source, say).as_dict()
        needed[host.name] = key
    return {"optillm_fleet_wheelhouses": made, "optillm_fleet_targets": needed}


def _variables(version: str | None, force: bool) -> dict[str, Any]:
    return {
        **({"optillm_proxy_version": version} if version else {}),
        **({"optillm_proxy_force": True} if force else {}),
    }


def plan(hosts: Hosts, version: str | None, source: Path | None, force: bool, say: Say) -> Report:
    """What a roll-out would change. Changes nothing on any host."""
    variables = _variables(version, force)
    events, refused = _read_hosts(hosts, variables, say)
    if refused is not None:
        return refused
    variables |= _prepared(events, source, say)
    foreseen, ended = _play("plan", hosts, variables, say, check=True)
    return Report(playbook_events.planned(sorted(events.hosts), foreseen.hosts), ended.interrupted)


def roll_out(
    hosts: Hosts,
    version: str | None,
    serial: Sequence[int | str],
    source: Path | None,
    force: bool,
    ask: Callable[[list[str]], None],
    say: Say,
) -> Report:
    """Roll out the deployment, batch by batch. It stops at the first failure.

    `ask`: called with the names of the hosts before any change; it raises an error to stop.
    """
    variables = _variables(version, force)
    events, refused = _read_hosts(hosts, variables, say)
    if refused is not None:
        return refused
    ask(list(events.hosts))
    variables |= _prepared(events, source, say)
    rolled, ended = _play("roll", hosts, {**variables, "optillm_fleet_batches": list(serial)}, say)
    return Report(
        playbook_events.outcome(
            events.hosts, rolled.hosts, ended.interrupted, playbook_events.PRESENT
        ),
        ended.interrupted,
    )


def rollback(
    hosts: Hosts, serial: Sequence[int | str], ask: Callable[[list[str]], None], say: Say
) -> Report:
    """Roll back every host to its previous release, batch by batch.

    It stops at the first failure.
    """
    events, ended = _play("status", hosts, {}, say)
    if ended.interrupted or any(host.bad for host in events.hosts.values()):
        bad = {name: host for name, host in events.hosts.items() if host.bad}
        return Report(
            playbook_events.outcome(events.hosts, bad, ended.interrupted, "optillm_rollback"),
            ended.interrupted,
        )
    ask(list(events.hosts))
    rolled, ended = _play("rollback", hosts, {"optillm_fleet_batches": list(serial)}, say)
    return Report(
        playbook_events.outcome(events.hosts, rolled.hosts, ended.interrupted, "optillm_rollback"),
        ended.interrupted,
    )


def status(hosts: Hosts, say: Say) -> Report:
    """The state of every host."""
    events, ended = _play("status", hosts, {}, say)
    return Report(playbook_events.state(sorted(events.hosts), events.hosts), ended.interrupted)


def check(hosts: Hosts, only: Sequence[str], say: Say) -> Report:
    """Run `optictl check` on every host. `only`: checks or families, empty for all."""
    events, ended = _play("check", hosts, {"optillm_fleet_only": list(only)}, say)
    return Report(
        playbook_events.answered(sorted(events.hosts), events.hosts, "optillm_check"),
        ended.interrupted,
    )


def smoke(hosts: Hosts, models: Sequence[str], say: Say) -> Report:
    """Run `optictl smoke` on every host. `models`: strategy models, empty for all."""
    events, ended = _play("smoke", hosts, {"optillm_fleet_models": list(models)}, say)
    return Report(
        playbook_events.answered(sorted(events.hosts), events.hosts, "optillm_smoke"),
        ended.interrupted,
    )
