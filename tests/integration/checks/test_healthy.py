"""A healthy, running deployment is accused of nothing, and every check has really looked."""

from __future__ import annotations

import re

import pytest

from optictl.checks import catalog
from testing.deployments import InstalledDeployment

pytestmark = pytest.mark.slow


def test_every_check_passes_on_a_running_deployment(deployment: InstalledDeployment) -> None:
    with deployment.standin().running(), deployment.serving():
        results = deployment.check()
    # it has just started: there is no request to judge
    skipped = {id: r.found for id, r in results.items() if r.status == "skip"}
    assert re.search("20 are needed$|older than this optictl", skipped.pop("strategies.effect"))
    assert set(skipped.values()) == {"this deployment is not managed by systemd"}
    assert {
        r.id: (r.status, r.found) for r in results.values() if r.status not in ("pass", "skip")
    } == {}
    assert sum(r.status == "pass" for r in results.values()) >= 20
    assert len(results) == len(catalog.all_checks())


def test_checks_spend_no_token_and_write_nothing(deployment: InstalledDeployment) -> None:
    with deployment.standin().running() as upstream, deployment.serving():
        before = _tree(deployment)
        deployment.check()
        assert upstream.calls() == []
        assert _tree(deployment) == before


def _tree(deployment: InstalledDeployment) -> dict[str, tuple[int, int, float]]:
    # the service writes its log itself
    paths = (p for p in deployment.root.rglob("*") if p.name != "service.log")
    return {str(p): ((s := p.lstat()).st_mode, s.st_size, s.st_mtime) for p in paths}


def test_a_release_that_does_not_serve_is_started_to_see_that_it_can(
    deployment: InstalledDeployment,
) -> None:
    result = deployment.check("release.starts")["release.starts"]
    assert result.status == "pass"
    assert "moa ran with 3 upstream calls" in result.found
