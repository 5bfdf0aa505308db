"""schemathesis against the OpenAPI description that the guard serves.

It makes requests from the description, good and bad ones, and compares the answers with it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from optictl.guard import openapi
from testing.kept import kept_venv
from testing.support import ROOT, UPSTREAM_KEY, open_directory

from .helpers import Pair, assert_silent, guarded_pair

pytestmark = pytest.mark.slow

_VERSION = "4.32.5"


@pytest.fixture(scope="module")
def pair(release: Path) -> Iterator[Pair]:
    # a good request may ask for 128 answers; these strategies make one call for each
    calls = ["--max-upstream-calls", "1000"]
    with guarded_pair(release, strategies=["none", "re2"], extra=calls) as pair:
        yield pair


@pytest.fixture(scope="module")
def schemathesis() -> Path:
    """The program, in an environment that is kept between sessions."""
    return kept_venv(f"schemathesis-{_VERSION}", f"schemathesis=={_VERSION}") / "bin/schemathesis"


def test_every_answer_is_as_described(pair: Pair, schemathesis: Path) -> None:
    with open_directory() as directory:
        command = [
            str(schemathesis),
            "run",
            pair.server.url.removesuffix("/v1") + openapi.PATH,
            "--header",
            f"Authorization: Bearer {pair.server.key}",
            "--checks",
            "all",
            "--max-examples",
            "60",
            "--seed",
            "1",
            "--workers",
            "1",
            "--no-color",
        ]
        done = subprocess.run(
            command,
            cwd=directory,
            env={**os.environ, "SCHEMATHESIS_HOOKS": str(ROOT / "testing/schemathesis_hooks.py")},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert_silent(pair.server)


def test_it_names_the_models_of_the_service(pair: Pair) -> None:
    served = pair.server.get(openapi.PATH, key=None)
    assert served.status_code == 200
    assert served.json() == openapi.document(["none", "re2"], ["jerry-xl"])
    model = served.json()["components"]["schemas"]["ChatRequest"]["properties"]["model"]
    assert model["enum"] == ["none-jerry-xl", "re2-jerry-xl"]
    assert UPSTREAM_KEY not in served.text


def test_every_schema_is_a_schema() -> None:
    for schema in openapi.document()["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
