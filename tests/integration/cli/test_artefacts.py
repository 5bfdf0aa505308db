"""render-* and config: only the artefact on stdout, and errors for an invalid configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml

from optictl.deployment import config, config_yaml, paths
from tests.integration.cli.helpers import Outcome, optictl, together, without_privileges
from tests.unit.golden_cases import ARTEFACTS, CASES, GOLDEN

COMMANDS = {
    "optillm-proxy.service": ["render-unit"],
    "optillm-proxy.socket": ["render-socket"],
    "optillm-proxy-check.service": ["render-check-unit"],
    "optillm-proxy-check.timer": ["render-check-timer"],
    "env": ["render-env"],
    "proxy_config.yaml": ["render-proxy-config"],
    "litellm.yaml": ["render-litellm"],
    "optictl.yaml": ["config", "show"],
}
BAD = """\
listen:
  port: 70000
upstream:
  base_url: http://192.0.2.1/v1
strategies:
  - moe
modle: tom
"""


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "my.yaml"
        path.write_text(text)
        return path

    return write


#: (case, artefact): every artefact of the defaults, and what differs most elsewhere
PAIRS = [
    *(("defaults", artefact) for artefact in COMMANDS),
    ("several-models", "litellm.yaml"),
    ("several-models", "optictl.yaml"),
    ("tuned", "optillm-proxy.service"),
    ("tuned", "proxy_config.yaml"),
]


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """case/artefact -> how the command that prints it ended."""
    home = tmp_path_factory.mktemp("home")
    for case in {case for case, _ in PAIRS}:
        (home / f"{case}.yaml").write_text(CASES[case][0])
    return together(
        {
            f"{c}/{a}": partial(optictl, *COMMANDS[a], "--config", f"{c}.yaml", home=home)
            for c, a in PAIRS
        }
    )


@pytest.mark.parametrize(("case", "artefact"), PAIRS)
def test_stdout_is_the_artefact_byte_for_byte(
    case: str, artefact: str, printed: dict[str, Outcome]
) -> None:
    outcome = printed[f"{case}/{artefact}"]
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == (GOLDEN / case / artefact).read_text()


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_root_moves_every_path_and_reads_the_configuration_there(how: str, tmp_path: Path) -> None:
    place = paths.system(tmp_path / "root")
    place.etc.mkdir(parents=True)
    place.config.write_text("listen: {port: 4999}\n")
    expected = ARTEFACTS["optillm-proxy.service"](
        config_yaml.parse(place.config.read_text(), "f"), place
    )
    if how == "flag":
        outcome = optictl("render-unit", "--root", "root", home=tmp_path)
    else:
        outcome = optictl(
            "render-unit", home=tmp_path, variables={"OPTICTL_ROOT": str(tmp_path / "root")}
        )
    assert (outcome.code, outcome.out) == (0, expected)


def test_user_scope_follows_xdg(tmp_path: Path) -> None:
    variables = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data")}
    outcome = optictl("render-unit", "--user", home=tmp_path, variables=variables)
    assert outcome.out == ARTEFACTS["optillm-proxy.service"](config.Config(), paths.user(variables))


def test_the_configuration_can_be_named_by_a_variable(
    written: Callable[[str], Path], tmp_path: Path
) -> None:
    variables = {"OPTICTL_CONFIG": str(written("model: tom"))}
    assert (
        yaml.safe_load(optictl("config", "show", home=tmp_path, variables=variables).out)["model"]
        == "tom"
    )


def test_schema_is_json(tmp_path: Path) -> None:
    outcome = optictl("config", "schema", home=tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert json.loads(outcome.out) == config.schema()


def test_a_bad_configuration_is_78_with_every_problem(
    written: Callable[[str], Path], tmp_path: Path
) -> None:
    path = written(BAD)
    commands = (
        ["render-unit"],
        ["config", "show"],
        ["install", "--dry-run"],
        ["run"],
        ["smoke", "moa-jerry-xl"],
    )
    runs = {
        " ".join(words): partial(optictl, *words, "--config", path, home=tmp_path)
        for words in commands
    }
    for command, outcome in together(runs).items():
        assert (outcome.code, outcome.out) == (78, ""), command
        assert str(path) in outcome.err
        for line, word in (
            (2, "listen.port"),
            (4, "upstream.base_url"),
            (6, "strategies.0"),
            (7, "modle"),
        ):
            assert f"line {line}: {word}: " in outcome.err, command
        assert "did you mean 'model'" in outcome.err
        assert "optictl config schema" in outcome.err
        assert "Traceback" not in outcome.err


def test_code_execution_without_permission_is_78(
    written: Callable[[str], Path], tmp_path: Path
) -> None:
    path = written("strategies:\n  - z3\n  - coc\n")
    outcome = optictl("render-unit", "--config", path, home=tmp_path)
    assert (outcome.code, outcome.out) == (78, "")
    for line, name in ((2, "z3"), (3, "coc")):
        assert f"line {line}: strategies.{line - 2}: '{name}' runs Python code" in outcome.err
    assert "allow_code_execution: true" in outcome.err
    path = written("strategies: [z3, coc]\nallow_code_execution: true\n")
    assert "z3,coc" in optictl("render-unit", "--config", path, home=tmp_path).out


def test_bad_yaml_is_78_with_its_line(written: Callable[[str], Path], tmp_path: Path) -> None:
    outcome = optictl("render-unit", "--config", written("model: a\nlisten: [\n"), home=tmp_path)
    assert (outcome.code, outcome.out) == (78, "")
    assert "line 3: not valid YAML" in outcome.err


class TestFilesThatCannotBeRead:
    @pytest.mark.parametrize(
        "arguments",
        [["render-unit"], ["config", "show"], ["check", "--only", "config"]],
        ids=" ".join,
    )
    def test_a_named_one_that_is_missing(self, arguments: list[str], tmp_path: Path) -> None:
        outcome = optictl(*arguments, "--config", "nosuch.yaml", "--root", tmp_path, home=tmp_path)
        assert outcome.code == 1
        told = outcome.out + outcome.err
        assert f"the configuration {tmp_path / 'nosuch.yaml'} does not exist" in told
        assert re.search(r"optictl (config show .*>|init)", told)

    def test_a_directory(self, tmp_path: Path) -> None:
        outcome = optictl("render-unit", "--config", tmp_path, home=tmp_path)
        assert (outcome.code, outcome.out) == (1, "")
        assert f"cannot read {tmp_path}: Is a directory" in outcome.err
        # no right in the world makes a directory a file
        assert "sudo" not in outcome.err

    def test_one_that_may_not_be_read(self, written: Callable[[str], Path], tmp_path: Path) -> None:
        path = written("")
        path.chmod(0)
        outcome = optictl(
            "render-unit", "--config", path, home=tmp_path, preexec_fn=without_privileges
        )
        assert (outcome.code, outcome.out) == (1, "")
        assert f"cannot read {path}: Permission denied" in outcome.err
        assert "sudo" in outcome.err

    def test_a_missing_one_that_nobody_named_is_the_defaults(self, tmp_path: Path) -> None:
        outcome = optictl("config", "show", "--root", tmp_path / "nothing", home=tmp_path)
        assert outcome.out == (GOLDEN / "defaults/optictl.yaml").read_text()
        assert list(tmp_path.iterdir()) == []
