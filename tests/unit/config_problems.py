"""What is wrong with a configuration that must be refused."""

from __future__ import annotations

import pytest

from optictl.deployment import config_yaml
from optictl.errors import ConfigError, Problem


def problems(text: str) -> list[Problem]:
    """What is wrong with a configuration that must be refused."""
    with pytest.raises(ConfigError) as caught:
        config_yaml.parse(text, "optictl.yaml")
    assert caught.value.source == "optictl.yaml"
    assert caught.value.problems
    return caught.value.problems


def places(text: str) -> list[tuple[str, int | None]]:
    return [(problem.path, problem.line) for problem in problems(text)]


def only_problem(text: str) -> Problem:
    found = problems(text)
    assert len(found) == 1, [str(p) for p in found]
    return found[0]
