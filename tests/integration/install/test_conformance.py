"""The conformance run on the real OptiLLM: as it is, and with strategies that were changed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from optictl.deployment import paths
from optictl.deployment.config import Config
from optictl.deployment.config_sections import OptiLLM
from optictl.deployment.paths import Paths
from optictl.errors import NotReady, ProofFailed
from optictl.guard import fingerprints
from optictl.host import files
from optictl.host.uv import Interpreter
from optictl.output.progress import Steps
from optictl.proof import conformance
from optictl.releases import build, integrity, locks, release_record, store
from testing.support import OTHER_STRATEGIES, STRATEGIES, open_directory

pytestmark = pytest.mark.slow

_DEFINITION = "def mixture_of_agents("
#: Put behind the strategy: it then takes the place of its function.
NO_CALL = """

def mixture_of_agents(*arguments, **options):
    return "7 This is answer 1 of the optictl stand-in.", 0
"""
SWALLOWED = """

def mixture_of_agents(*arguments, **options):
    try:
        return _original(*arguments, **options)
    except Exception as error:
        return f"Sorry: {error}", 0
"""
ONE_CALL = """

def mixture_of_agents(system_prompt, initial_query, client, model, **options):
    messages = [{"role": "user", "content": initial_query}]
    answer = client.chat.completions.create(model=model, messages=messages)
    return answer.choices[0].message.content, 1
"""
OWN_CLIENT = """

def mixture_of_agents(system_prompt, initial_query, client, model, **options):
    import os
    import openai
    address = [word for word in open("/proc/self/cmdline").read().split(chr(0)) if "http" in word]
    client = openai.OpenAI(api_key="stand-in", base_url=address[0])
    return _original(system_prompt, initial_query, client, model, **options)
"""
#: OptiLLM imports the function when it starts.
GONE = ""
HARMLESS = """

def mixture_of_agents(*arguments, **options):
    return _original(*arguments, **options)
"""


@dataclass
class Changeable:
    """A release with its own copy of OptiLLM; all other packages are those of the kept venv."""

    directory: Path

    @property
    def packages(self) -> Path:
        return next((self.directory / ".venv/lib").glob("python3.*")) / "site-packages"

    def change_moa(self, behind: str) -> None:
        """Add code to the strategy; its own function is then called `_original`."""
        file = self.packages / "optillm/moa.py"
        text = file.read_text()
        assert text.count(_DEFINITION) == 1
        file.unlink()  # it may be a link to the kept one
        file.write_text(text.replace(_DEFINITION, "def _original(") + behind)
        file.chmod(0o644)


def fill(directory: Path, release: Path) -> Changeable:
    """Make a directory a release like this one, whose OptiLLM may be changed."""
    venv, kept = directory / ".venv", (release / ".venv").resolve()
    packages = next((kept / "lib").glob("python3.*")) / "site-packages"
    (directory / "work").mkdir()
    shutil.copytree(release / "guard", directory / "guard")
    ours = venv / packages.relative_to(kept)
    ours.mkdir(parents=True)
    shutil.copytree(kept / "bin", venv / "bin", symlinks=True)
    shutil.copyfile(kept / "pyvenv.cfg", venv / "pyvenv.cfg")
    for package in packages.iterdir():
        if package.name == "optillm":
            shutil.copytree(package, ours / package.name)
        else:
            (ours / package.name).symlink_to(package)
    return Changeable(directory)


@pytest.fixture
def changeable(release: Path) -> Iterator[Changeable]:
    with open_directory() as directory:
        yield fill(directory, release)


def run(release: Path, *strategies: str) -> list[str]:
    """What a passed run said while it tried the promises."""
    said: list[str] = []
    conformance.run(Config(strategies=strategies), release, Steps(said.append, said.append))
    return said


@pytest.mark.parametrize("strategies", [STRATEGIES, OTHER_STRATEGIES], ids=["usual", "others"])
def test_the_real_optillm_keeps_every_promise(release: Path, strategies: tuple[str, ...]) -> None:
    since = time.monotonic()
    said = run(release, *strategies)
    assert len([line for line in said if "runs" in line]) == len(strategies)
    assert time.monotonic() - since < 60


@pytest.mark.parametrize(
    ("change", "promise"),
    [
        (NO_CALL, "moa runs"),
        (ONE_CALL, "moa runs"),
        (SWALLOWED, "moa reports an outage after its first call"),
        (OWN_CLIENT, "moa runs"),
    ],
    ids=["no-call", "one-call", "swallowed", "own-client"],
)
def test_a_strategy_that_breaks_a_promise(
    changeable: Changeable, change: str, promise: str
) -> None:
    changeable.change_moa(change)
    with pytest.raises(ProofFailed, match=r"the release breaks a promise") as broken:
        run(changeable.directory, "bon", "moa")
    assert f"({promise})" in broken.value.what


def test_a_strategy_that_is_gone(changeable: Changeable) -> None:
    changeable.change_moa(GONE)
    with pytest.raises(NotReady, match="ended with code"):
        run(changeable.directory, "bon", "moa")


def test_a_strategy_with_a_harmless_change(changeable: Changeable) -> None:
    changeable.change_moa(HARMLESS)
    assert fingerprints.unknown(changeable.packages, ["moa", "bon"]) == ["optillm/moa.py"]
    run(changeable.directory, "bon", "moa")


# -- what a build makes of it


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch, release: Path) -> Iterator[Paths]:
    """Where builds fill a release with the kept packages instead of installing them."""

    def make(directory: Path, *_: object) -> None:
        directory.mkdir(parents=True)
        fill(directory, release)

    monkeypatch.setattr(build, "_make", make)
    monkeypatch.setattr(integrity, "verified_stamps", lambda _: {})
    with open_directory() as root:
        places = paths.system(root)
        files.make_directory(places.releases)
        yield places


def built(places: Paths, monkeypatch: pytest.MonkeyPatch, change: str) -> Path:
    """The directory of a release that was built with this change of moa."""
    make = build._make

    def make_and_change(directory: Path, *others: object) -> None:
        make(directory, *others)  # type: ignore[arg-type]
        Changeable(directory).change_moa(change)

    monkeypatch.setattr(build, "_make", make_and_change)
    config = Config(strategies=("moa", "bon"))
    want = locks.required_release(config, places)
    python = Interpreter(Path("/usr/bin/python3"), (3, 11, 0), None)
    build.build(want, places, config, python, None, lambda _: None)
    return want.directory(places)


def test_a_build_with_an_unknown_text_is_conformant(
    places: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = release_record.read(built(places, monkeypatch, HARMLESS))
    assert record is not None
    assert record.conformance is not None
    assert record.conformance.passed
    assert (record.proof.strategy, record.proof.upstream_calls) == ("moa", 3)


def test_a_build_that_breaks_a_promise_is_removed(
    places: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ProofFailed, match="moa reports an outage after its first call"):
        built(places, monkeypatch, SWALLOWED)
    assert store.complete(places) == []
    assert list(places.releases.iterdir()) == []


def test_a_stored_release_is_tried_again(places: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = built(places, monkeypatch, HARMLESS)
    (Changeable(directory).packages / "optillm/moa.py").unlink()
    with pytest.raises(NotReady, match="ended with code"):
        build.conform_again(directory, Config(strategies=("moa",)), lambda _: None, places.scratch)
    record = release_record.read(directory)
    assert record is not None
    assert record.conformance is not None
    assert not record.conformance.passed


def test_a_strategy_that_the_release_does_not_have(release: Path) -> None:
    config = Config(optillm=OptiLLM(version="0.9.0"), strategies=("moa", "brand_new"))
    with pytest.raises(ProofFailed, match="OptiLLM has no brand_new"):
        conformance.run(config, release, lambda _: None)


def test_a_plugin_of_the_operator_promises_nothing(release: Path) -> None:
    config = Config(plugins=("mine.py",), strategies=("moa", "mine"))
    said: list[str] = []
    conformance.run(config, release, Steps(said.append, said.append))
    assert not any("mine" in line for line in said)
