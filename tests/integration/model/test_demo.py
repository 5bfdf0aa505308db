"""`optictl demo --model`: the whole demonstration on the real model."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from optictl.demo import model, show
from optictl.deployment.config import Config
from optictl.host import network, uv
from optictl.output.console import Terminal
from optictl.releases import build
from optictl.releases.release_record import Proof
from testing.kept import model_directory
from testing.litellm_proxy import base_url
from testing.recorder import recording
from testing.support import STRATEGIES, free_port, open_directory

pytestmark = pytest.mark.slow

#: The most tokens of a completion, to save time.
MOST_TOKENS = 24


@pytest.fixture
def quick(locked_venv: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A demonstration with copies of kept packages, one trial of its release, and short texts.

    tests/integration/install has the real ones. Returns the addresses of the model's server.
    """
    model_directory()  # before uv is replaced
    serving, urls = model.serving, list[str]()

    def copy(directory: Path, *_: object) -> None:
        subprocess.run(["cp", "-a", f"{locked_venv}/.", str(directory)], check=True)

    def prove(directory: Path, config: Config, _say: object, scratch: Path) -> Proof:
        return build.prove(directory, config, scratch)

    @contextmanager
    def serving_short(*given: Path) -> Iterator[str]:
        port = free_port()
        with serving(*given) as url, recording(url, port, MOST_TOKENS):
            urls.append(url)
            yield base_url(port)

    monkeypatch.setattr(uv, "install", copy)
    monkeypatch.setattr(build, "conform", prove)
    monkeypatch.setattr(model, "serving", serving_short)
    return urls


def test_the_demonstration_shows_real_answers(
    quick: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with open_directory() as root:
        (root / "model").symlink_to(model_directory())
        code = show.demonstrate(Terminal("demo"), root, once=True, is_real=True)
    shown = capsys.readouterr()
    assert code == 0, shown.out + shown.err
    assert "using the existing model SmolLM2-135M-Instruct" in shown.err
    assert "The answers are real. The model is small (135 million parameters)" in shown.err
    for strategy in STRATEGIES:
        assert f"\n{strategy}-jerry-xl\n  " in shown.out  # its answer
        assert re.search(rf"^(pass|warn)  {strategy}-jerry-xl ", shown.out, re.M)
    (url,) = quick
    assert not network.is_listening(urlsplit(url).port or 0)
