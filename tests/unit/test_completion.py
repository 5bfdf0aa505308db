"""What the shell offers for models, strategies, checks and versions."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from optictl.cli import app


def offered(line: str) -> list[str]:
    """What bash gets for the last word of a command line."""
    variables = {
        "_OPTICTL_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
    }
    return CliRunner().invoke(app, [], env=variables, prog_name="optictl").stdout.split()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "etc/optillm-proxy/optictl.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("model: tom\nbase_models: [tom]\nstrategies: [moa, mars]\n")
    return tmp_path


def test_models_and_strategies_are_those_of_the_deployment(root: Path) -> None:
    assert offered(f"optictl smoke --root {root} m") == ["moa-tom", "mars-tom"]
    assert offered(f"optictl trace --root {root} mo") == ["moa-tom"]
    assert offered(f"optictl compare --root {root} --models t") == ["tom"]
    assert offered(f"optictl logs --root {root} --strategy ma") == ["mars"]


def test_checks_and_families() -> None:
    assert offered("optictl check --only heal")[0] == "health"
    assert "health.alive" in offered("optictl check --without health.")
    assert offered("optictl check --explain env.for") == ["env.forbidden"]


def test_versions_and_commands() -> None:
    assert "0.3.13" in offered("optictl upgrade 0.3")
    assert "render" in offered("optictl ren")
    assert "render-env" not in offered("optictl ren")
    assert "litellm" in offered("optictl render l")


def test_a_broken_configuration_offers_nothing(root: Path) -> None:
    (root / "etc/optillm-proxy/optictl.yaml").write_text("model: [")
    assert offered(f"optictl smoke --root {root} m") == []
