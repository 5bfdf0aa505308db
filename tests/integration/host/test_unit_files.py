"""What `systemd-analyze` says of the rendered units."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from optictl.deployment import paths, render
from optictl.deployment.config import Config
from optictl.deployment.render import Host
from tests.unit.golden_cases import case

#: `systemd-analyze security` of the check's unit: it is root and sees other processes.
EXPOSURE = 2.1


@pytest.mark.parametrize("scope", ["system", "user"])
@pytest.mark.parametrize("directory", ["plain", "with blanks and 100%"])
def test_systemd_has_nothing_to_say(scope: str, directory: str, tmp_path: Path) -> None:
    """`systemd-analyze verify` prints nothing. It requires a real executable in ExecStart."""
    root = tmp_path / directory
    places = paths.system(root) if scope == "system" else paths.user({"HOME": str(root)})
    python = places.current / ".venv/bin/python"
    for path in (python.parent, places.current / "work", places.units):
        path.mkdir(parents=True)
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    places.service.write_text(render.unit(Config(), places))
    places.socket.write_text(render.socket(Config(), places))
    units = [places.service, places.socket]
    if scope == "system":
        places.root_directory.mkdir()
        # as good as the real one, which not every machine has in the same place
        places.upstream_service.write_text(
            render.upstream_service(Config(), places, Host(socket_proxyd=Path("/bin/true")))
        )
        places.upstream_socket.write_text(render.upstream_socket(Config(), places))
        units += [places.upstream_service, places.upstream_socket]
    command = ["systemd-analyze", *(["--user"] if scope == "user" else []), "verify", *units]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "SYSTEMD_COLORS": "0"},
    )
    assert (result.stdout, result.stderr, result.returncode) == ("", "", 0)


@pytest.mark.parametrize("name", ["defaults", "tuned", "user"])
def test_it_is_closed_and_systemd_has_nothing_to_say(name: str, tmp_path: Path) -> None:
    read, places = case(name)
    service, timer = tmp_path / places.check_service.name, tmp_path / places.check_timer.name
    service.write_text(render.check_service(read, places, Host(program=Path("/bin/true"))))
    timer.write_text(render.check_timer(places))
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "SYSTEMD_COLORS": "0"}
    scope = ["--user"] if name == "user" else []
    verified = subprocess.run(
        ["systemd-analyze", *scope, "verify", service, timer],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert (verified.stdout, verified.stderr, verified.returncode) == ("", "", 0)
    if name != "user":  # a user's manager has no walls to give
        command = ["systemd-analyze", "security", "--offline=true", "--no-pager", service]
        judged = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert (
            float(judged.stdout.partition("Overall exposure level for ")[2].split()[1]) <= EXPOSURE
        )
