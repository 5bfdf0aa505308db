"""Every command with --output json prints one valid envelope, in success and in failure."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer.main
from jsonschema import Draft202012Validator

from optictl.cli import app
from tests.integration.cli.helpers import (
    OPTICTL,
    Outcome,
    assert_envelope,
    configured,
    environment,
    optictl,
    together,
)

HOSTS = ("-i", "inventory.yml")
#: The words that each command needs. `fleet` is asked about an inventory without hosts.
NEEDED: dict[str, tuple[str, ...]] = {
    "check": ("--only", "config.valid"),
    "compare": (),
    "fleet apply": HOSTS,
    "fleet check": HOSTS,
    "fleet plan": HOSTS,
    "fleet rollback": HOSTS,
    "fleet smoke": ("moa-jerry-xl", *HOSTS),
    "fleet status": HOSTS,
    "fleet upgrade": ("0.3.12", *HOSTS),
    "fleet wheelhouse": ("--architecture", "none", "--python", "3.12"),
    "init": ("--dry-run",),
    "install": ("--dry-run",),
    "logs": (),
    "releases": (),
    "restart": (),
    "rollback": (),
    "smoke": ("moa-jerry-xl",),
    "start": (),
    "status": (),
    "stop": (),
    "top": ("--count", "1"),
    "trace": ("moa-jerry-xl", "Hello"),
    "uninstall": ("--dry-run",),
    "upgrade": ("--dry-run",),
    "wheelhouse": ("wheels",),
}
#: Those that succeed where nothing is installed.
FINE = ("check", "init", "releases", "uninstall")
#: Those that do not read the configuration.
WITHOUT_CONFIGURATION = ("check", "init", "logs", "releases", "status", "uninstall", "wheelhouse")


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[str]:
    """The commands that have --output."""
    if any(parameter.name == "output" for parameter in command.params):
        yield " ".join(words)
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*words, name))


def test_the_table_has_every_command() -> None:
    assert sorted(NEEDED) == sorted(commands(typer.main.get_command(app)))


@pytest.fixture(scope="module")
def validator(tmp_path_factory: pytest.TempPathFactory) -> Draft202012Validator:
    """For what `optictl schema envelope` publishes."""
    schema = optictl("schema", "envelope", home=tmp_path_factory.mktemp("home")).data
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def run_all(home: Path, lines: Mapping[str, tuple[str, ...]]) -> dict[str, Outcome]:
    (home / "inventory.yml").write_text("all:\n  hosts:\n")
    runs = {
        name: partial(optictl, *name.split(), *words, "--output", "json", home=home)
        for name, words in lines.items()
    }
    return together(runs)


def at(root: Path, name: str) -> tuple[str, ...]:
    return () if name.startswith("fleet ") else ("--root", str(root))


def test_the_schema_refuses_what_is_no_envelope(validator: Draft202012Validator) -> None:
    fine = {"schema": 1, "command": "check", "status": "ok", "results": []}
    error = {"code": "usage", "what": "x", "remedy": ""}
    assert validator.is_valid(fine)
    assert validator.is_valid({**fine, "status": "failed", "error": error})
    changes: list[dict[str, Any]] = [
        {"schema": 2},
        {"status": "good"},
        {"results": {}},
        {"error": error},
        {"status": "failed", "error": {**error, "code": "nosuch"}},
    ]
    for wrong in changes:
        assert not validator.is_valid({**fine, **wrong}), wrong


def test_where_nothing_is_installed(validator: Draft202012Validator, tmp_path: Path) -> None:
    root = configured(tmp_path / "root")
    lines = {name: (*words, *at(root, name)) for name, words in NEEDED.items()}
    for name, outcome in run_all(tmp_path, lines).items():
        assert outcome.out, (name, outcome)
        validator.validate(outcome.data)
        expected = "ok" if outcome.code == 0 else "failed"
        assert_envelope(outcome.data, name, expected)
        assert outcome.code == 0 or name not in FINE, (name, outcome)


def test_a_wrong_command_line(validator: Draft202012Validator, tmp_path: Path) -> None:
    lines = {name: (*words, "--nonsense") for name, words in NEEDED.items()}
    for name, outcome in run_all(tmp_path, lines).items():
        validator.validate(outcome.data)
        assert_envelope(outcome.data, name, "failed")
        assert (outcome.code, outcome.data["error"]["code"]) == (2, "usage"), name
        assert outcome.err


def test_a_configuration_that_is_not_valid(validator: Draft202012Validator, tmp_path: Path) -> None:
    root = configured(tmp_path / "root", "listen: {port: 0}\n")
    (root / "etc/optillm-proxy/proxy_key").write_text("k" * 40)
    lines = {
        name: (*words, *at(root, name))
        for name, words in NEEDED.items()
        if name not in WITHOUT_CONFIGURATION and not name.startswith("fleet ")
    }
    for name, outcome in run_all(tmp_path, lines).items():
        validator.validate(outcome.data)
        assert_envelope(outcome.data, name, "failed")
        assert (outcome.code, outcome.data["error"]["code"]) == (78, "config-invalid"), name


@pytest.mark.parametrize(
    "words", [["check", "--list"], ["config", "schema"], ["check", "-o", "json"]], ids=" ".join
)
def test_a_full_standard_output_is_an_error(words: list[str], tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [OPTICTL, *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(tmp_path),
            cwd=tmp_path,
        )
    assert done.returncode == 1
    assert done.stderr.count("the standard output cannot be written: No space left") == 1
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_the_extra_that_is_missing_is_named(tmp_path: Path) -> None:
    hidden = "import sys\nsys.modules['ansible'] = None\nsys.modules['ansible_runner'] = None\n"
    (tmp_path / "sitecustomize.py").write_text(hidden)
    (tmp_path / "inventory.yml").write_text("all:\n  hosts:\n")
    variables = {"PYTHONPATH": str(tmp_path)}
    for command in ("rollback", "plan", "status"):
        outcome = optictl(
            "fleet", command, *HOSTS, "-o", "json", home=tmp_path, variables=variables
        )
        assert outcome.code == 1
        error = outcome.data["error"]
        assert error["code"] == "missing-extra", json.dumps(error)
        assert "optictl[fleet]" in error["remedy"]
