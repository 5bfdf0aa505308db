"""Everything about this machine that the plan of an installation depends on, each fact read
once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optictl.deployment import render
from optictl.deployment.artefacts import (
    Artefact,
    monitoring_files,
    operators_files,
    rendered_files,
)
from optictl.deployment.config import Config
from optictl.deployment.manifest import Manifest
from optictl.deployment.paths import Paths
from optictl.deployment.render import Host
from optictl.errors import denied
from optictl.facts import installed_files, units
from optictl.facts.installed_files import InstalledFile
from optictl.facts.units import Running
from optictl.host import files
from optictl.operations import sealed_trial
from optictl.operations.proxy_key import new_proxy_key
from optictl.releases import activations, locks, release_record, store
from optictl.releases.locks import ReleaseSpec
from optictl.takeover import reader
from optictl.takeover.handmade import HandMade


@dataclass(frozen=True)
class CurrentState:
    """What is installed, what runs, and what the configuration makes of this machine.

    `want` is the release that it asks for, `built` whether it is there, `broken` why the active one
    has to be rebuilt. `unit_first`: its guard does not know every flag of the installed unit.
    `artefacts` are the files to come, rendered with `host`; `installed` is what is there, also of
    the files that the manifest names. `running`: None where systemd does not run this deployment.
    `drop_ins` are those of the service's unit, `leftovers` what an interrupted optictl left.
    """

    want: ReleaseSpec
    built: bool
    broken: str
    unit_first: bool
    releases: store.Releases
    manifest: Manifest
    host: Host
    artefacts: Sequence[Artefact]
    installed: Mapping[Path, InstalledFile]
    running: Running | None
    hand_made: HandMade | None
    drop_ins: Sequence[Path]
    leftovers: Sequence[Path]
    metrics: Path | None
    has_left_over_trial: bool

    @property
    def unrecorded(self) -> list[Artefact]:
        """Rendered files that are right already and that the manifest does not name."""
        return [
            artefact
            for artefact in rendered(self.artefacts)
            if self.installed[artefact.path].text == artefact.text
            and not self.manifest.wrote(artefact.path, artefact.text)
        ]


def read(
    config: Config,
    paths: Paths,
    *,
    start: bool,
    release: ReleaseSpec | None,
    lock: Path | None = None,
) -> CurrentState:
    """Read the facts. Nothing is changed.

    `start`: have systemd run it. `release`: one that is there already. `lock`: to build it from.

    Raises:
        OptictlError: a file of the deployment may not be read.
    """
    releases = store.read(paths)
    required = release or locks.required_release(config, paths, lock)
    standing = (required, True, "") if release else store.standing(required, paths, releases)
    want, built, broken = standing
    host = host_for(want, releases)
    manifest = installed_files.read_manifest(paths)
    artefacts = render_artefacts(config, paths, host)
    running = units.running(config, paths) if start else None
    return CurrentState(
        want=want,
        built=built,
        broken=broken,
        unit_first=_has_unknown_flags(paths, releases, want),
        releases=releases,
        manifest=manifest,
        host=host,
        artefacts=artefacts,
        installed=installed_files.read_all(artefacts, manifest),
        running=running,
        hand_made=None if paths.is_private else _hand_made(paths),
        drop_ins=_drop_ins(paths, running),
        leftovers=_others(leftovers(paths, artefacts, releases.half_built), want),
        metrics=metrics(paths),
        has_left_over_trial=running is not None and sealed_trial.leftover(paths),
    )


def _others(leftover: list[Path], want: ReleaseSpec) -> list[Path]:
    return [path for path in leftover if path.name != want.name]


def _has_unknown_flags(paths: Paths, releases: store.Releases, want: ReleaseSpec) -> bool:
    """Whether the installed unit has flags that the guard of the wanted release does not know."""
    unit_text = files.read(paths.service) or ""
    known_flags = set(releases.guard_flags(want.name))
    return releases.active is not None and not render.flags_in(unit_text) <= known_flags


def host_for(want: ReleaseSpec, releases: store.Releases) -> Host:
    """The facts of this machine that the units of this release depend on."""
    active = releases.records.get(releases.active) if releases.active else None
    return units.host_of(releases.records.get(want.name), active)


def render_artefacts(config: Config, paths: Paths, host: Host) -> list[Artefact]:
    """Every file of the deployment, in the order in which it is written."""
    text = render.configuration(config)
    return [
        *operators_files(text, config, paths, new_proxy_key()),
        *rendered_files(config, paths, host),
        *monitoring_files(config, paths, host),
    ]


def rendered(artefacts: Sequence[Artefact]) -> list[Artefact]:
    """Those that optictl owns and that have a text: the manifest names them."""
    return [artefact for artefact in artefacts if not (artefact.keep or artefact.directory)]


def _hand_made(paths: Paths) -> HandMade | None:
    try:
        return reader.read(paths)
    except PermissionError as error:
        raise denied(error.filename) from None


def _drop_ins(paths: Paths, running: Running | None) -> list[Path]:
    read_by_systemd = running.units[paths.service_unit].drop_in_paths if running else ()
    return units.drop_ins(paths, paths.service_unit, read_by_systemd)


def metrics(paths: Paths) -> Path | None:
    """The file that the installed check's unit writes its metrics to, if it is there."""
    path = render.check_textfile(files.read(paths.check_service) or "")
    return path if path is not None and files.file_facts(path).kind == "file" else None


def leftovers(
    paths: Paths, artefacts: Sequence[Artefact], half_built: Sequence[Path]
) -> list[Path]:
    """What a killed optictl may have left: half-built releases, texts that were not renamed,
    scratch files.
    """
    records = [
        path
        for place in sorted(paths.releases.glob("*"))
        for path in (activations.path(place), place / release_record.FILE)
    ]
    written = [
        *(a.path for a in artefacts),
        paths.manifest,
        paths.current,
        paths.previous,
        *records,
    ]
    possible = [*map(files.temporary, written), paths.scratch]
    return [*half_built, *(path for path in possible if files.file_facts(path).kind != "missing")]
