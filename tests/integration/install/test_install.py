"""`optictl install`: first and second run, drift, failures, offline wheelhouse, another user."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from uv import find_uv_bin

from optictl.deployment import render
from testing.support import UNPRIVILEGED, open_directory

pytestmark = pytest.mark.slow


def _run(program: Path, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False, **options
    )  # type: ignore[call-overload,no-any-return]


def _with_key(place: Path) -> None:
    (place / "etc/optillm-proxy/env").write_text("OPENAI_API_KEY=a-key-of-litellm\n")


def _one_of_two_at_once(
    command: list[str], environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Start two installations at once: the outcome of the one that installed.

    The other is refused, and their files do not mix.
    """
    both = [
        subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in "ab"
    ]
    said = [process.communicate() for process in both]
    ended = [
        subprocess.CompletedProcess(p.args, p.returncode, *s)
        for p, s in zip(both, said, strict=True)
    ]
    (installed,) = (one for one in ended if "activated" in one.stderr)
    (refused,) = (one for one in ended if "is working on this deployment" in one.stderr)
    assert refused.returncode == 1
    return installed


def test_the_life_of_a_deployment(
    program: Path, place: Path, plain_environment: dict[str, str]
) -> None:
    """init, install (twice at once), nothing to do, drift fixed, a failing build, and on again."""

    def optictl(*arguments: str) -> subprocess.CompletedProcess[str]:
        return _run(program, *arguments, "--root", str(place), env=plain_environment)

    assert optictl("init").returncode == 0
    _with_key(place)

    planned = optictl("install", "--dry-run")
    assert planned.returncode == 0
    assert "build" in planned.stdout
    assert not (place / "opt").exists()

    first = _one_of_two_at_once(
        [str(program), "install", "--yes", "--root", str(place)], plain_environment
    )
    # LiteLLM is not there, and the check that ends an installation says so
    assert first.returncode == 1, first.stderr
    assert "fail  upstream.base-model" in first.stdout
    assert first.stdout.count("fail  ") == 1
    current = place / "opt/optillm-proxy/current"
    release = current.resolve()
    record = json.loads((release / "release.json").read_text())
    assert record["optillm"] == "0.3.12"
    assert record["proof"]["strategy"] == "moa"
    assert record["proof"]["upstream_calls"] == 3
    assert list((release / ".venv").rglob("moa.cpython-*.pyc")), (
        "the bytecode is compiled at install"
    )
    assert not {
        "torch",
        "transformers",
        "litellm",
        "spacy",
        "gradio",
        "datasets",
        "selenium",
    } & set(record["distributions"])

    again = optictl("install", "--yes")
    assert "No changes." in again.stdout
    assert "build" not in again.stderr

    (place / "var/lib/optillm-proxy/.optillm/proxy_config.yaml").write_text("providers: []\n")
    (place / "etc/optillm-proxy/proxy_key").chmod(0o644)
    refused = optictl("install", "--yes")
    assert refused.returncode == 1
    assert "not what optictl wrote" in " ".join(refused.stderr.split())
    mended = optictl("install", "--yes", "--force")
    assert "-providers: []" in mended.stdout
    assert "its mode is 0644, not 0600" in " ".join(mended.stdout.split())
    assert "build" not in mended.stderr
    assert (place / "etc/optillm-proxy/proxy_key").stat().st_mode & 0o777 == 0o600

    # a configuration that asks for another release, which cannot be built
    plugin = place / "etc/optillm-proxy/mine.py"
    plugin.write_text(
        'SLUG = "mine"\n\n\ndef run(system_prompt, initial_query, client, model):\n'
        "    return initial_query, 0\n"
    )
    config = place / "etc/optillm-proxy/optictl.yaml"
    config.write_text(config.read_text().replace("plugins: []", "plugins: [mine.py]"))
    with open_directory() as empty:
        failed = optictl("install", "--yes", "--wheelhouse", str(empty))
    assert failed.returncode == 1
    assert "uv pip install failed" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert current.resolve() == release
    # the failed build was removed at once
    assert [path.name for path in release.parent.iterdir()] == [release.name]

    on = optictl("install", "--yes")
    assert current.resolve() != release
    assert (current / "work/optillm/plugins/mine.py").read_text() == plugin.read_text()
    assert "removing the half-built" not in on.stderr


def test_a_wheelhouse_installs_without_the_network(
    program: Path, place: Path, plain_environment: dict[str, str]
) -> None:
    lock = render.template_directory() / "locks/optillm-0.3.12-proxy.txt"
    wheels = place / "wheels"
    subprocess.run(
        [
            find_uv_bin(),
            "run",
            "-q",
            "--no-project",
            "--python",
            "/usr/bin/python3",
            "--with",
            "pip",
            "python",
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--require-hashes",
            "--only-binary",
            ":all:",
            "-r",
            str(lock),
            "-d",
            str(wheels),
        ],
        check=True,
        env=plain_environment,
    )
    # an empty cache: what is installed can only have come from the wheelhouse
    environment = {**plain_environment, "UV_CACHE_DIR": str(place / "cache")}
    arguments = [
        "install",
        "--yes",
        "--root",
        str(place / "root"),
        "--wheelhouse",
        str(wheels),
        "--output",
        "json",
    ]
    # the wheels are for the Python that pip ran on; a newer one may be there
    result = _run(program, *arguments, "--python", "/usr/bin/python3", env=environment)
    envelope = json.loads(result.stdout)
    statuses = {r["id"]: r["status"] for r in envelope["results"]}
    assert statuses["release.pinned"] == "pass"
    # the key for LiteLLM is the one thing that install cannot make
    assert [id for id, status in statuses.items() if status == "fail"] == ["env.upstream-key"]


def _identity() -> dict[str, object]:
    return (
        {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []}
        if os.getuid() == 0
        else {}
    )


@pytest.fixture(scope="module")
def users_cache() -> Iterator[Path]:
    """uv's cache of a user, for more than one test: filled once, and not by root."""
    with open_directory() as directory:
        directory.chmod(0o777)
        yield directory


def test_a_user_without_any_rights_has_the_whole_demonstration(
    program: Path, place: Path, plain_environment: dict[str, str], users_cache: Path
) -> None:
    """From the wheel, not as root, twice: the second run reuses the release."""
    place.chmod(0o777)
    environment = {**plain_environment, "HOME": str(place), "UV_CACHE_DIR": str(users_cache)}
    first = _run(program, "demo", "--once", env=environment, cwd="/", **_identity())
    assert first.returncode == 0, first.stderr
    for strategy in ("moa", "bon", "plansearch", "self_consistency"):
        assert f"pass  {strategy}-jerry-xl" in first.stdout
    assert "fail" not in first.stdout
    assert "built and proven" in first.stderr
    second = _run(program, "demo", "--once", env=environment, cwd="/", **_identity())
    assert second.returncode == 0, second.stderr
    assert "using the existing release" in second.stderr
    assert "built and proven" not in second.stderr


def test_the_user_scope_follows_xdg(
    program: Path, place: Path, plain_environment: dict[str, str], users_cache: Path
) -> None:
    place.chmod(0o777)
    own = {
        "HOME": str(place),
        "UV_CACHE_DIR": str(users_cache),
        "XDG_CONFIG_HOME": str(place / "configuration"),
    }
    environment = {**plain_environment, **own}
    result = _run(program, "install", "--user", "--yes", env=environment, cwd="/", **_identity())
    assert "activated 0.3.12-" in result.stderr, result.stderr
    assert (place / "configuration/systemd/user/optillm-proxy.service").is_file()
    assert (place / ".local/share/optillm-proxy/current/release.json").is_file()
    assert (place / ".local/state/optillm-proxy/.optillm/proxy_config.yaml").is_file()
    unit = (place / "configuration/systemd/user/optillm-proxy.service").read_text()
    assert "User=" not in unit
    assert "WantedBy=default.target" in unit
