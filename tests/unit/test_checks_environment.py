"""The checks of the configuration, on a file below a temporary root."""

from __future__ import annotations

from pathlib import Path

from optictl.checks import environment
from optictl.deployment import paths
from optictl.facts.deployment import Deployment


def deployment(root: Path, text: str) -> Deployment:
    places = paths.system(root)
    places.etc.mkdir(parents=True)
    places.config.write_text(text)
    return Deployment(places)


def test_every_problem_of_the_configuration_is_named(tmp_path: Path) -> None:
    broken = deployment(tmp_path, "listen: {host: 0.0.0.0}\nstrategies: [moa, z3]\n")
    (finding,) = environment.config_valid.run(broken)
    assert finding.status == "fail"
    assert "listen.host" in finding.found
    assert "'z3' runs Python code" in finding.found


def test_permitted_strategies_that_run_code_are_named(tmp_path: Path) -> None:
    text = "strategies: [moa, z3]\nallow_code_execution: true\n"
    findings = list(environment.config_code_execution.run(deployment(tmp_path, text)))
    assert [(f.status, f.found.partition(" ")[0]) for f in findings] == [("warn", "z3")]
