"""What changes for the users of a hand-made service, as the table says it."""

from __future__ import annotations

import pytest

from optictl.deployment import paths
from optictl.deployment.config import Config
from optictl.takeover import table
from tests.unit.test_takeover_proposal import GOOD

OLD_KEY = str(GOOD.proxy_key)


@pytest.mark.parametrize(
    ("new_key", "same"), [(OLD_KEY, True), ("another-key-0123456789abcdef", False), (None, False)]
)
def test_the_key_is_the_same_only_if_it_is(new_key: str | None, same: bool) -> None:
    assert OLD_KEY
    places = paths.system()
    rows = table.rows(GOOD, Config(), places, new_key, dynamic=True)
    (key,) = (row.becomes for row in rows if row.what == "proxy key")
    assert (key == "the same") is same
    assert same or str(places.proxy_key) in key
