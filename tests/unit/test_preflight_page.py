"""docs/reference/preflight.md lists every problem that preflight can report."""

from __future__ import annotations

import re

from optictl.host import systemd
from optictl.operations.preflight import OF_A_BUILD, RELEASE_MB
from testing.support import ROOT

PAGE = (ROOT / "docs/reference/preflight.md").read_text()


def test_every_problem_is_listed_and_no_other() -> None:
    source = (ROOT / "optictl/operations/preflight.py").read_text()
    known = set(re.findall(r'_problem\(\s*"([a-z-]+)"', source))
    assert len(known) == 16
    listed = re.findall(r"^\| `preflight\.([a-z-]+)` \|", PAGE, re.M)
    assert sorted(listed) == sorted(known)
    assert {id.removeprefix("preflight.") for id in OF_A_BUILD} <= known


def test_its_figures_are_those_of_the_program() -> None:
    assert f"older than {systemd.OLDEST_SUPPORTED}," in PAGE
    assert f"({RELEASE_MB['proxy']} MB; {RELEASE_MB['full'] / 1000} GB for" in PAGE
    assert all(f"| {since}" in PAGE for since in systemd.PROTECTIONS)
