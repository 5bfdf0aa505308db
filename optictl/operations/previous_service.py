"""The service that was there before optictl's: keep it, put it back, start it again."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from optictl import records
from optictl.deployment.paths import Paths
from optictl.facts import units
from optictl.host import files, network
from optictl.results import Progress
from optictl.takeover import reader, record
from optictl.takeover.handmade import HandMade
from optictl.takeover.record import KeptFile, Record


def was_connected(hand_made: HandMade | None) -> bool:
    """Whether the service that was written by hand reaches LiteLLM now."""
    if hand_made is None or not hand_made.active or hand_made.port is None:
        return False
    url = f"http://127.0.0.1:{hand_made.port}/v1/models"
    return network.request("GET", url, key=hand_made.proxy_key, timeout=10).status == 200


def keep(hand_made: HandMade, paths: Paths, targets: Iterable[str]) -> None:
    """Copy the unit that was written by hand and its drop-ins to `before/`, readable by root
    alone, with its state.
    """
    originals = [
        path for path in map(Path, sorted(targets)) if files.file_facts(path).kind == "file"
    ]
    files.remove(paths.before)
    files.make_directory(paths.before, 0o700)
    kept = []
    for number, path in enumerate(originals):
        facts, name = files.file_facts(path), record.kept_name(number, path)
        files.write(paths.before / name, files.read(path) or "", 0o600)
        kept.append(KeptFile(str(path), facts.mode, facts.uid, facts.gid, name))
    now = records.utc_now()
    state = Record(hand_made.unit, hand_made.enabled, hand_made.active, now, tuple(kept))
    files.write(paths.before / record.STATE, state.dump(), 0o600)


def read(paths: Paths) -> Record | None:
    """What was there before this deployment, or None."""
    return record.parse(files.read(paths.before / record.STATE))


def read_if_allowed(paths: Paths) -> Record | None:
    """The same, for a message: None also where the caller may not know."""
    with suppress(PermissionError):
        return read(paths)
    return None


def put_back(paths: Paths, state: Record) -> None:
    """Write the files of a service that was there before, with their modes and owners."""
    for kept in state.files:
        path = Path(kept.path)
        files.make_directory(path.parent)
        files.write(path, files.read(paths.before / kept.name) or "", kept.mode)
        files.set_owners(path, kept.uid, kept.gid)


#: Seconds in which a service that is put back has to listen again: OptiLLM takes 2 to 11 s to
#: start.
_LISTENS_AGAIN = 60


def serve_again(
    paths: Paths, enabled: str, active: bool, port: int | None, progress: Progress
) -> str:
    """Enable and start a unit that was put back, as it was before; the result, in words.

    `enabled` is systemd's word for how it started at boot, `port` what it listens on, None where it
    is unknown.
    """
    systemd, unit = units.manager(paths), paths.service_unit
    if enabled in record.ENABLED:
        systemd.enable(unit, runtime=enabled.endswith("-runtime"))
    if not active:
        return f"{unit} is back as it was"
    progress(f"starting {unit} again")
    systemd.start(unit)
    if port is None:
        return f"{unit} is back as it was and was started"
    until = time.monotonic() + _LISTENS_AGAIN
    while not network.is_listening(port):
        if time.monotonic() > until:
            return (
                f"{unit} is back and started, "
                f"but does not listen on port {port} after {_LISTENS_AGAIN} s"
            )
        time.sleep(0.1)
    return f"{unit} is back as it was and serves again"


def restore(paths: Paths, progress: Progress) -> None:
    """Return the service that was there before optictl's, as it was. Without a record of one,
    nothing is done.
    """
    if (state := read(paths)) is None:
        return
    put_back(paths, state)
    if units.read_units(paths) is not None:
        units.manager(paths).reload()
        restored = reader.read(paths)
        port = restored.port if restored is not None else None
        progress(serve_again(paths, state.enabled, state.active, port, progress))
    files.remove(paths.before)
    if paths.etc.is_dir() and not any(paths.etc.iterdir()):
        files.remove(paths.etc)
