"""What ends an upgrade halfway: a function of optictl that fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

LAST_PROOF = "optictl.operations.upgrade._prove_again"
CANARY = "optictl.operations.canary.ask_release"


@contextmanager
def failing(
    monkeypatch: pytest.MonkeyPatch, function: str, failure: BaseException
) -> Iterator[None]:
    """During the block, a function of optictl raises `failure`."""

    def fail(*_: object, **__: object) -> None:
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(function, fail)
        yield
