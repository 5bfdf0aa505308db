"""A hand-made service, read from units as people write them, below its own root."""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from typing import Any

import pytest

from optictl.deployment import manifest, paths, render
from optictl.deployment.config import Config
from optictl.host.systemd import Systemd
from optictl.takeover import reader
from optictl.takeover.handmade import HIDDEN, HandMade, redacted

KEY = "kept-by-hand-0123456789-abcdef"
ME = getpass.getuser()
FLAGS = (
    "--host 127.0.0.1 --port 5220 --base-url http://127.0.0.1:4000/v1 --approach proxy"
    f" --model jerry-xl --optillm-api-key {KEY}"
)
#: What the flags come to.
FACTS: dict[str, Any] = {
    "host": "127.0.0.1",
    "port": 5220,
    "base_url": "http://127.0.0.1:4000/v1",
    "approach": "proxy",
    "model": "jerry-xl",
    "proxy_key": KEY,
    "extra_flags": (),
    "runs_optillm": True,
}
SEVERAL = (
    "OPTILLM_PORT=5220\nOPTILLM_MODEL='jerry-xl'\nOPTILLM_APPROACH=proxy\n"
    "OPTILLM_BASE_URL=http://127.0.0.1:4000/v1\n"
)


class Place:
    """A root with a hand-made unit in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths = paths.system(root)
        self.home = root / "home/u"

    def file(self, name: str | Path, text: str, mode: int = 0o644) -> Path:
        path = self.root / str(name).lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def unit(self, service: str, more: str = "", name: str = "optillm-proxy") -> Path:
        text = (
            f"[Unit]\nDescription=OptiLLM\n\n[Service]\n{service}\n{more}\n[Install]\n"
            "WantedBy=multi-user.target\n"
        )
        return self.file(f"etc/systemd/system/{name}.service", text.replace("ROOT", str(self.root)))

    def read(self) -> HandMade:
        service = reader.read(self.paths)
        assert service is not None
        return service


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_one_of_the_specification(place: Place) -> None:
    env = place.file("etc/optillm-proxy/env", "OPENAI_API_KEY=sk-litellm-1234\n", 0o600)
    config = place.file(
        "home/u/.optillm/proxy_config.yaml",
        "providers:\n- {name: litellm, base_url: 'http://127.0.0.1:4000/v1', api_key: "
        "a-provider-key,"
        " model_map: {a: jerry-xl}}\n"
        "- {name: far, base_url: 'https://api.openai.com/v1', api_key: '${OPENAI_API_KEY}'}\n",
    )
    (place.root / "home/u/.venv/lib/python3.12/site-packages/optillm-0.3.10.dist-info").mkdir(
        parents=True
    )
    path = place.unit(
        f"Type=simple\nUser={ME}\nWorkingDirectory=ROOT/home/u\nEnvironment=HOME=ROOT/home/u\n"
        "EnvironmentFile=ROOT/etc/optillm-proxy/env\n"
        f"ExecStart=ROOT/home/u/.venv/bin/optillm {FLAGS}\nRestart=always"
    )
    service = place.read()
    assert {name: getattr(service, name) for name in FACTS} == FACTS
    assert (service.unit, service.path, service.user) == ("optillm-proxy.service", path, ME)
    assert service.version == "0.3.10"
    assert (service.env_files, service.env_file, service.upstream_key) == (
        (env,),
        env,
        "sk-litellm-1234",
    )
    assert service.provider_config == config
    assert [(p.name, p.base_url, p.model_map) for p in service.providers] == [
        ("litellm", "http://127.0.0.1:4000/v1", {"a": "jerry-xl"}),
        ("far", "https://api.openai.com/v1", {}),
    ]
    assert (service.problems, service.denied, service.wrappers) == ((), (), ())
    assert service.where["port"] == f"--port in {path}:10"
    assert service.where["OPENAI_API_KEY"] == str(env)
    for secret in (KEY, "sk-litellm-1234", "a-provider-key"):
        assert secret not in repr(service)
        assert secret not in service.redact(service.text + config.read_text() + env.read_text())


@pytest.mark.parametrize(
    ("service", "different"),
    [
        # one flag a line, with comments between them
        (
            (
                f"ExecStart=/x/optillm \\\n  # a comment\n  {' '.join(FLAGS.split()[:6])} \\\n"
                f"  {' '.join(FLAGS.split()[6:])}"
            ),
            {},
        ),
        (f"ExecStart=-@/x/optillm optillm {FLAGS}", {}),
        (
            "ExecStart=/x/optillm "
            + FLAGS.replace("-url http", "_url=http").replace("--port ", "--port="),
            {},
        ),
        (f"ExecStart=/x/optillm --port 1 {FLAGS}", {}),
        (
            f"ExecStart=/x/optillm {FLAGS} --n 3 --log-conversations --log=debug",
            {"extra_flags": ("--n", "--log-conversations", "--log")},
        ),
        (f"Environment=K={KEY}\nExecStart=/x/optillm {FLAGS.replace(KEY, '${K}')}", {}),
        (f"Environment=K={KEY}\nExecStart=/x/optillm {FLAGS.replace(KEY, '$K')}", {}),
        (f"Environment='F={FLAGS}'\nExecStart=/x/optillm $F", {}),
        (f"ExecStart=/bin/sh -c 'exec /x/optillm {FLAGS}'", {}),
        (f'ExecStart=/bin/bash -lc "source .venv/bin/activate && optillm {FLAGS}"', {}),
        (
            (
                'ExecStart=/bin/bash -c "cd /x && . .venv/bin/activate; '
                f'exec optillm {FLAGS} >> /var/log/o.log 2>&1"'
            ),
            {},
        ),
        (
            (
                "ExecStart=/bin/sh -c 'umask 077; HOST=127.0.0.1; "
                f"optillm {FLAGS.replace('127.0.0.1', '$${HOST}', 1)}'"
            ),
            {},
        ),
        (f"ExecStart=/usr/bin/env PATH=/x LOG=1 optillm {FLAGS}", {}),
        (f"ExecStart=/home/u/.local/bin/uv run --project /x optillm {FLAGS}", {}),
        (f"ExecStart=uv run --directory /x --no-sync -- optillm {FLAGS}", {}),
        (f"ExecStart=/usr/bin/uvx optillm@0.3.12 {FLAGS}", {}),
        (f"ExecStart=uv tool run --from optillm==0.3.12 optillm {FLAGS}", {}),
        (f"ExecStart=/x/.venv/bin/python -m optillm {FLAGS}", {}),
        (f"ExecStart=/x/.venv/bin/python3.12 -u -Xutf8 -m optillm.server {FLAGS}", {}),
        (f"ExecStart=/usr/bin/python3 -W ignore optillm.py {FLAGS}", {}),
        (f"ExecStart=/x/.venv/bin/python /x/.venv/bin/optillm {FLAGS}", {}),
        (f"ExecStart=/usr/bin/nice -n 5 /usr/bin/taskset 0x3 /x/optillm {FLAGS}", {}),
        (f"ExecStart=/usr/bin/sudo -u u -E /x/optillm {FLAGS}", {}),
        (f"ExecStart=/bin/true ; /x/optillm {FLAGS}", {}),
        (f"EnvironmentFile=ROOT/env\nExecStart=/x/optillm --optillm-api-key {KEY}", {}),
        # the flag wins over the variable
        (
            (
                "Environment=OPTILLM_PORT=1 OPTILLM_HOST=0.0.0.0 OPENAI_BASE_URL=http://x\n"
                f"ExecStart=/x/optillm {FLAGS}"
            ),
            {},
        ),
        # OptiLLM's own defaults
        (
            "ExecStart=/x/optillm",
            {
                "port": 8000,
                "base_url": "",
                "approach": "auto",
                "model": "gpt-4o-mini",
                "proxy_key": "",
            },
        ),
        (
            (
                "Environment=OPENAI_BASE_URL=http://127.0.0.1:4000/v1\n"
                "ExecStart=/x/optillm --port 5220"
            ),
            {"approach": "auto", "model": "gpt-4o-mini", "proxy_key": ""},
        ),
        (
            (
                f"Environment=OPTILLM_API_KEY={KEY} OPTILLM_HOST=0.0.0.0\n"
                "EnvironmentFile=ROOT/env\n"
                "ExecStart=/x/optillm"
            ),
            {"host": "0.0.0.0"},
        ),
        (
            (
                "EnvironmentFile=ROOT/env\nExecStart=/x/optillm --optillm-api-key ${O_KEY}\n"
                f"Environment=O_KEY={KEY}"
            ),
            {},
        ),
        (
            (
                "UnsetEnvironment=OPTILLM_MODEL\nEnvironmentFile=ROOT/env\n"
                f"ExecStart=/x/optillm --optillm-api-key {KEY}"
            ),
            {"model": "gpt-4o-mini"},
        ),
    ],
)
def test_what_people_write(place: Place, service: str, different: dict[str, Any]) -> None:
    place.file("env", SEVERAL)
    place.unit(service)
    found = place.read()
    assert {name: getattr(found, name) for name in FACTS} == {**FACTS, **different}
    assert found.problems == ()
    assert KEY not in repr(found)


def test_a_script_in_between(place: Place) -> None:
    place.file("key", KEY + "\n")
    place.file(".env", "export MODEL=jerry-xl\n")
    script = place.file(
        "start.sh",
        "#!/usr/bin/env bash\nset -euo pipefail\n# starts it\n"
        f"cd {place.root}\nset -a; source .env; set +a\n"
        'PORT=${PORT:-5220}\nif [ -n "$PORT" ]; then\n'
        '  exec ./.venv/bin/optillm --host 127.0.0.1 --port "$PORT" \\\n'
        "    --base-url http://127.0.0.1:4000/v1 --model $MODEL \\\n"
        '    --optillm-api-key "$(cat key)" "$@"\nfi\n',
        0o755,
    )
    place.unit(f"ExecStart={script} --approach proxy")
    found = place.read()
    assert {name: getattr(found, name) for name in FACTS} == FACTS
    assert found.wrappers[0] == str(script)
    assert found.directory == place.root


def test_what_only_a_shell_could_tell_is_said_and_not_run(place: Place) -> None:
    place.unit(
        "ExecStart=/bin/sh -c 'optillm --port 5220 --optillm-api-key \"$$(pass show optillm)\"'"
    )
    found = place.read()
    assert (found.port, found.proxy_key) == (5220, "")
    assert "the output of a program" in " ".join(found.problems)


@pytest.mark.parametrize(
    ("service", "words"),
    [
        (
            "ExecStart=/usr/bin/nginx -g 'daemon off;'",
            "does not start OptiLLM in a recognizable way",
        ),
        (
            "ExecStart=/usr/bin/docker run -p 4020:8000 optillm",
            "does not start OptiLLM in a recognizable way",
        ),
        ("ExecStart=/x/optillm --model 'a", "ExecStart= cannot be read: a quote (') is not closed"),
        ("Type=oneshot", "no readable ExecStart="),
        ("ExecStart=/x/optillm --port http", "not a port number"),
        ("ExecStart=/x/optillm --port", "--port has no value"),
        ("EnvironmentFile=env\nExecStart=/x/optillm", "not an absolute path"),
        ("EnvironmentFile=/no/such\nExecStart=/x/optillm", "/no/such is missing"),
        ("hello\nExecStart=/x/optillm", "a line without NAME="),
    ],
)
def test_what_cannot_be_read_is_told(place: Place, service: str, words: str) -> None:
    place.unit(service)
    assert words in "\n".join(place.read().problems)


def test_drop_ins_in_systemds_order(place: Place) -> None:
    place.unit("ExecStart=/x/optillm --port 1\nUser=root\nEnvironment=A=1")
    drop_ins = "etc/systemd/system/optillm-proxy.service.d"
    place.file(f"{drop_ins}/20-user.conf", f"[Service]\nUser={ME}\nEnvironment=A=3\n")
    place.file(
        f"{drop_ins}/10-exec.conf",
        f"[Service]\nExecStart=\nExecStart=/x/optillm {FLAGS}\nEnvironment=A=2 B=2\n",
    )
    place.file(
        "usr/lib/systemd/system/optillm-proxy.service.d/10-exec.conf",
        "[Service]\nExecStart=/hidden\n",
    )
    place.file("run/systemd/system/service.d/15-all.conf", "[Service]\nEnvironment=C=4\n")
    place.file(f"{drop_ins}/note.txt", "[Service]\nUser=nobody\n")
    found = place.read()
    assert [p.name for p, _ in found.drop_ins] == ["10-exec.conf", "15-all.conf", "20-user.conf"]
    assert {name: getattr(found, name) for name in FACTS} == FACTS
    assert {n: found.environment[n] for n in "ABC"} == {"A": "3", "B": "2", "C": "4"}
    assert KEY not in repr(found)


def test_env_files_over_environment_optional_ones_and_patterns(place: Place) -> None:
    place.file("a.env", "A=2\nB=2\n")
    place.file("d/1.env", "B=3\n")
    place.unit(
        "ExecStart=/x/optillm\nEnvironment=A=1 C=1\nEnvironmentFile=ROOT/a.env\n"
        "EnvironmentFile=-/no/such"
        "\nEnvironmentFile=ROOT/d/*.env"
    )
    found = place.read()
    assert {n: found.environment[n] for n in "ABC"} == {"A": "2", "B": "3", "C": "1"}
    assert found.env_files == (place.root / "a.env", place.root / "d/1.env")
    assert found.problems == ()


def test_plugins_below_its_working_directory(place: Place) -> None:
    plugin = place.file("w/optillm/plugins/mine.py", "SLUG = 'mine'\n")
    place.unit("WorkingDirectory=ROOT/w\nExecStart=/x/optillm")
    assert place.read().plugins == (plugin,)


@pytest.mark.parametrize(
    "directory", ["usr/lib/systemd/system", "usr/local/lib/systemd/system", "run/systemd/system"]
)
def test_a_unit_elsewhere(place: Place, directory: str) -> None:
    path = place.file(
        f"{directory}/optillm-proxy.service", f"[Service]\nExecStart=/x/optillm {FLAGS}\n"
    )
    assert place.read().path == path


def test_one_of_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(Systemd, "available", lambda _: False)
    place = Place(tmp_path)
    place.paths = paths.user({"HOME": str(tmp_path)})
    config = place.file(
        ".optillm/proxy_config.yaml",
        "providers: [{name: l, base_url: 'http://127.0.0.1:4000/v1'}]\n",
    )
    place.file(".config/o/env", "OPENAI_API_KEY=k\n")
    place.file(
        ".config/systemd/user/optillm-proxy.service",
        f"[Service]\nEnvironmentFile=%E/o/env\nExecStart=%h/.venv/bin/optillm {FLAGS}\n",
    )
    found = place.read()
    assert {name: getattr(found, name) for name in FACTS} == FACTS
    assert (found.user, found.home, found.provider_config) == (ME, tmp_path, config)
    assert found.program[0] == f"{tmp_path}/.venv/bin/optillm"
    assert found.upstream_key == "k"


class TestNone:
    def test_where_there_is_no_unit(self, place: Place) -> None:
        assert reader.read(place.paths) is None

    def test_for_a_mask(self, place: Place) -> None:
        place.paths.units.mkdir(parents=True)
        place.paths.service.symlink_to("/dev/null")
        place.file(
            "usr/lib/systemd/system/optillm-proxy.service", "[Service]\nExecStart=/x/optillm\n"
        )
        assert reader.read(place.paths) is None

    def test_for_what_optictl_wrote_and_a_person_edited(self, place: Place) -> None:
        path = place.unit("ExecStart=/x/optillm")
        place.file(
            "opt/optillm-proxy/manifest.json",
            manifest.Manifest().intending({str(path): "other"}).dump(),
        )
        assert reader.read(place.paths) is None

    def test_for_what_optictl_rendered_though_its_manifest_is_lost(self, place: Place) -> None:
        place.file("etc/systemd/system/optillm-proxy.service", render.unit(Config(), place.paths))
        assert reader.read(place.paths) is None


def test_a_unit_that_may_not_be_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place.unit("ExecStart=/x/optillm")
    path.chmod(0)
    if os.geteuid() == 0:

        def closed(_: Path) -> str:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr("optictl.host.files.read", closed)
    with pytest.raises(PermissionError):
        reader.read(place.paths)


def test_an_env_file_that_may_not_be_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    env = place.file("env", "A=1\n")
    place.unit("EnvironmentFile=ROOT/env\nExecStart=/x/optillm --port 7")
    from optictl.host import files

    read = files.read

    def closed(path: Path) -> str | None:
        if path == env:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(files, "read", closed)
    found = place.read()
    assert (found.port, found.denied) == (7, (env,))


def test_services_of_other_names(place: Place) -> None:
    place.unit(f"ExecStart=/x/optillm {FLAGS}", name="optillm")
    place.unit("ExecStart=/usr/bin/litellm --port 4000", name="litellm")
    place.unit("ExecStart=/x/optillm --port 1")
    other = paths.system(place.root, "second")
    place.file("etc/systemd/system/second.service", render.unit(Config(), other))
    assert [(s.unit, s.port) for s in reader.others(place.paths)] == [("optillm.service", 5220)]
    assert [s.unit for s in reader.others(other)] == ["optillm-proxy.service", "optillm.service"]


class TestRedaction:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("--optillm-api-key hunter2 --x", f"--optillm-api-key {HIDDEN} --x"),
            ("--optillm-api-key='hunter2 x'", f"--optillm-api-key={HIDDEN}"),
            ("--optillm-api-key \\\n  hunter2", f"--optillm-api-key \\\n  {HIDDEN}"),
            ("#Environment=OPENAI_API_KEY=hunter2", f"#Environment=OPENAI_API_KEY={HIDDEN}"),
            ('Environment="MY_TOKEN=hunter2"', f'Environment="MY_TOKEN={HIDDEN}"'),
            ("http://u:hunter2@host/", f"http://{HIDDEN}@host/"),
            # references are no secrets
            ("--optillm-api-key ${KEY}", "--optillm-api-key ${KEY}"),
            ("--optillm-api-key @%d/proxy_key", "--optillm-api-key @%d/proxy_key"),
            ("KeyringMode=inherit", "KeyringMode=inherit"),
        ],
    )
    def test_by_place(self, text: str, expected: str) -> None:
        assert redacted(text) == expected
        assert redacted(redacted(text)) == expected

    def test_of_what_this_service_knows(self, place: Place) -> None:
        place.unit(
            "Environment='MY_SECRET=a b%%c' HTTP_PROXY=http://me:pw123456@proxy:3128\n"
            "ExecStart=/x/optillm --optillm-api-key abc --port 1"
        )
        found = place.read()
        shown = found.redact(found.text + " a b%c abc abcd 'abc'")
        assert "a b" not in shown
        assert "pw123456" not in shown
        assert shown.endswith(f" {HIDDEN} {HIDDEN} abcd '{HIDDEN}'")
