"""Where a deployment lives: the system's, one below --root, one of a user."""

from __future__ import annotations

from pathlib import Path

import pytest

from optictl.deployment import paths


def test_the_system_scope_is_the_specification() -> None:
    places = paths.system()
    assert places.scope == "system"
    assert places.config == Path("/etc/optillm-proxy/optictl.yaml")
    assert places.env == Path("/etc/optillm-proxy/env")
    assert places.proxy_key == Path("/etc/optillm-proxy/proxy_key")
    assert places.releases == Path("/opt/optillm-proxy/releases")
    assert places.current == Path("/opt/optillm-proxy/current")
    assert places.proxy_config == Path("/var/lib/optillm-proxy/.optillm/proxy_config.yaml")
    assert places.service == Path("/etc/systemd/system/optillm-proxy.service")
    assert places.socket == Path("/etc/systemd/system/optillm-proxy.socket")


def every(places: paths.Paths) -> list[Path]:
    return [
        places.config,
        places.env,
        places.proxy_key,
        places.releases,
        places.current,
        places.proxy_config,
        places.service,
        places.socket,
        places.etc,
        places.opt,
        places.home,
        places.units,
    ]


def test_a_root_moves_all_of_it() -> None:
    root = Path("/srv/elsewhere")
    moved = every(paths.system(root))
    assert moved == [root / path.relative_to("/") for path in every(paths.system())]


def test_the_user_scope_without_any_variable() -> None:
    places = paths.user({"HOME": "/home/jerry"})
    assert places.scope == "user"
    assert places.config == Path("/home/jerry/.config/optillm-proxy/optictl.yaml")
    assert places.opt == Path("/home/jerry/.local/share/optillm-proxy")
    assert places.home == Path("/home/jerry/.local/state/optillm-proxy")
    assert places.service == Path("/home/jerry/.config/systemd/user/optillm-proxy.service")


def test_the_user_scope_follows_xdg() -> None:
    places = paths.user(
        {
            "HOME": "/home/jerry",
            "XDG_CONFIG_HOME": "/c",
            "XDG_DATA_HOME": "/d",
            "XDG_STATE_HOME": "/s",
            "XDG_CACHE_HOME": "/x",
        }
    )
    assert (places.etc, places.opt, places.home) == (
        Path("/c/optillm-proxy"),
        Path("/d/optillm-proxy"),
        Path("/s/optillm-proxy"),
    )
    assert places.units == Path("/c/systemd/user")


@pytest.mark.parametrize("value", ["", "relative", "./here", "~/.config", "../up"])
def test_xdg_values_that_are_not_absolute_do_not_count(value: str) -> None:
    variables = dict.fromkeys(("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"), value)
    assert paths.user({"HOME": "/home/jerry", **variables}) == paths.user({"HOME": "/home/jerry"})


def test_without_home_the_password_file_decides() -> None:
    assert all(path.is_absolute() for path in every(paths.user({})))
