"""Remedies name commands that work for this deployment."""

from __future__ import annotations

from pathlib import Path

import pytest

from optictl.deployment import paths, remedies


@pytest.mark.parametrize(
    ("remedy", "expected"),
    [
        ("raise it, then optictl install", "raise it, then optictl install --root /srv/a"),
        (
            "optictl check names what is wrong; find it with optictl trace",
            "optictl check --root /srv/a names what is wrong; find it with optictl trace "
            "--root /srv/a",
        ),
        ("optictl check --root /srv/a", "optictl check --root /srv/a"),
        ("use another model", "use another model"),
        ("", ""),
    ],
)
def test_every_command_is_for_the_deployment(remedy: str, expected: str) -> None:
    assert remedies.for_deployment(remedy, paths.system(Path("/srv/a"))) == expected


def test_the_usual_deployment_needs_no_flags() -> None:
    assert remedies.for_deployment("optictl install", paths.system()) == "optictl install"
