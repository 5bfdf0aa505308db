"""The real uv on a machine whose settings of uv would break a build, or name the only index."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from optictl.deployment import paths
from optictl.errors import OptictlError
from optictl.host import uv
from optictl.releases import interpreters

pytestmark = pytest.mark.slow

WHEEL = "optictl_sample-1.0-py3-none-any.whl"
#: Each of them, with uv's own discovery of settings, ends a build or changes what it makes.
HOSTILE = """
exclude-newer = "2020-01-01"
python-preference = "only-managed"
python-downloads = "automatic"
offline = true
link-mode = "symlink"
compile-bytecode = false
no-binary = true
constraint-dependencies = ["optictl-sample<1"]
[pip]
require-hashes = false
only-binary = [":none:"]
no-binary = [":all:"]
exclude-newer = "2020-01-01"
target = "/nowhere"
"""
VARIABLES = {
    "UV_EXCLUDE_NEWER": "2020-01-01",
    "UV_PYTHON_PREFERENCE": "only-managed",
    "UV_OFFLINE": "1",
    "UV_LINK_MODE": "symlink",
    "UV_NO_BINARY": "1",
    "UV_PYTHON": "2.7",
    "UV_CONSTRAINT": "/nowhere",
    "PYTHONPATH": "/nowhere",
    "VIRTUAL_ENV": "/nowhere",
}


def _wheel() -> bytes:
    """A wheel of a module, a package's tests and a source for another Python, always the same."""
    content = {
        "optictl_sample.py": "VALUE = 1\n",
        "optictl_pack/tests/__init__.py": "VALUE = 1\n",
        "optictl_pack/older.py": "print 'for Python 2'\n",
        "optictl_sample-1.0.dist-info/METADATA": (
            "Metadata-Version: 2.1\nName: optictl-sample\nVersion: 1.0\n"
        ),
        "optictl_sample-1.0.dist-info/WHEEL": (
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    record = "".join(f"{name},,\n" for name in (*content, "optictl_sample-1.0.dist-info/RECORD"))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in {**content, "optictl_sample-1.0.dist-info/RECORD": record}.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text)
    return packed.getvalue()


class Machine:
    """The user's settings of uv, a directory of wheels, a lock, and the venv to install into."""

    def __init__(self, directory: Path) -> None:
        self.settings, self.venv = directory / "config/uv/uv.toml", directory / "venv"
        self.wheels, self.lock = directory / "wheels", directory / "lock.txt"
        self.settings.parent.mkdir(parents=True)
        self.wheels.mkdir()
        (self.wheels / WHEEL).write_bytes(_wheel())
        self.write_lock(hashlib.sha256(_wheel()).hexdigest())

    def write_lock(self, digest: str) -> None:
        self.lock.write_text(f"optictl-sample==1.0 --hash=sha256:{digest}\n")

    def install(self, wheelhouse: Path | None = None) -> None:
        uv.make_venv(self.venv, Path(sys.executable))
        uv.install(self.venv, self.lock, wheelhouse)

    def installed(self) -> list[Path]:
        """The module that was installed and its bytecode."""
        return sorted(self.venv.glob("lib/*/site-packages/**/optictl_sample*.py*"))


def test_bytecode_is_for_what_is_imported(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "tests")
    machine.install(machine.wheels)
    (packages,) = machine.venv.glob("lib/*/site-packages")
    assert [path.stem.partition(".")[0] for path in packages.glob("__pycache__/optictl*.pyc")] == [
        "optictl_sample"
    ]
    assert list((packages / "optictl_pack").rglob("*.pyc")) == []


def test_bytecode_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    uv.make_venv(machine.venv, Path(sys.executable))
    (packages,) = machine.venv.glob("lib/*/site-packages")
    # a file in the place of the directory: also root cannot write below it
    (packages / "__pycache__").write_text("")
    with pytest.raises(OptictlError, match="compileall failed"):
        uv.install(machine.venv, machine.lock, machine.wheels)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    for name in [name for name in os.environ if name.startswith("UV_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "system"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    return Machine(tmp_path)


class Index:
    """An index on loopback with a password. `asked` has the paths of the requests that had it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        digest = hashlib.sha256(_wheel()).hexdigest()
        page = f'<a href="/{WHEEL}#sha256={digest}">{WHEEL}</a>'.encode()
        expected = "Basic " + base64.b64encode(b"jerry:hush").decode()
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                authorized = self.headers.get("Authorization") == expected
                self.send_response(200 if authorized else 401)
                body = (_wheel() if self.path.endswith(".whl") else page) if authorized else b""
                self.send_header(
                    "Content-Type", "application/zip" if self.path.endswith(".whl") else "text/html"
                )
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                if authorized:
                    asked.append(self.path)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.server.server_port}/simple"


@pytest.fixture
def index() -> Iterator[Index]:
    index = Index()
    yield index
    index.server.shutdown()


def _uv_itself(machine: Machine) -> subprocess.CompletedProcess[str]:
    """What uv says where it is called without optictl's settings."""
    command = [
        uv.program(),
        "pip",
        "install",
        "--python",
        machine.venv / "bin/python",
        "--require-hashes",
        "-r",
        machine.lock,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")


def test_hostile_settings_change_nothing(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.settings.write_text(f'find-links = ["{machine.wheels}"]\nno-index = true\n{HOSTILE}')
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    assert Path(os.path.realpath(sys.executable)) in [
        interpreter.path for interpreter in uv.interpreters()[0]
    ]
    machine.install()
    module, bytecode = sorted(machine.installed(), key=lambda path: path.suffix)
    assert (module.suffix, bytecode.suffix) == (".py", ".pyc")
    assert not module.is_symlink()
    assert _uv_itself(machine).returncode != 0, "these settings are not hostile"


@pytest.mark.parametrize("settings", ['python-preference = "only-managed"', HOSTILE])
def test_every_interpreter_is_found_whatever_the_settings_are(
    settings: str, machine: Machine
) -> None:
    without = uv.interpreters()
    machine.settings.write_text(settings)
    assert uv.interpreters() == without
    assert without[0]


def test_the_systems_settings_do_not_count_either(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "system/uv").mkdir(parents=True)
    (tmp_path / "system/uv/uv.toml").write_text(
        f'find-links = ["{machine.wheels}"]\nno-index = true\n{HOSTILE}'
    )
    machine.install()
    assert len(machine.installed()) == 2


@pytest.mark.parametrize("table", ["", "[pip]\n"])
def test_an_index_with_a_password_is_reached_by_the_users_settings(
    table: str, machine: Machine, index: Index
) -> None:
    machine.settings.write_text(f'{table}index-url = "{index.url("jerry:hush@")}"\n')
    machine.install()
    assert len(machine.installed()) == 2
    assert index.asked == ["/simple/optictl-sample/", f"/{WHEEL}"]


def test_or_by_its_own_variables(
    machine: Machine, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.settings.write_text(
        f'[[index]]\nname = "inhouse"\nurl = "{index.url()}"\ndefault = true\n'
    )
    monkeypatch.setenv("UV_INDEX_INHOUSE_USERNAME", "jerry")
    monkeypatch.setenv("UV_INDEX_INHOUSE_PASSWORD", "hush")
    machine.install()
    assert len(machine.installed()) == 2


def test_a_wheelhouse_needs_no_index(machine: Machine) -> None:
    machine.settings.write_text('index-url = "http://127.0.0.1:9/simple"\n')
    machine.install(machine.wheels)
    assert len(machine.installed()) == 2


def _fails(machine: Machine) -> OptictlError:
    with pytest.raises(OptictlError) as caught:
        machine.install()
    return caught.value


def test_a_wrong_password_is_not_told(machine: Machine, index: Index) -> None:
    machine.settings.write_text(f'index-url = "{index.url("jerry:wrong-secret@")}"\n')
    error = _fails(machine)
    assert "the index requires credentials" in error.what
    assert "401" in error.detail
    assert "wrong-secret" not in f"{error.what} {error.remedy} {error.detail}"


def test_an_index_that_cannot_be_reached(machine: Machine) -> None:
    machine.settings.write_text('index-url = "http://jerry:hush@127.0.0.1:9/simple"\n')
    error = _fails(machine)
    assert error.what == "uv pip install failed: the index cannot be reached"
    assert "Connection refused" in error.detail
    assert "hush" not in error.detail


def test_a_file_of_another_hash(machine: Machine, index: Index) -> None:
    machine.settings.write_text(f'index-url = "{index.url("jerry:hush@")}"\n')
    machine.write_lock("0" * 64)
    assert "a downloaded file does not have the hash in the lock" in _fails(machine).what


def test_a_cache_that_cannot_be_used(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan needs none: it lists the interpreters and writes nothing. The build says the fault."""
    monkeypatch.delenv("UV_CACHE_DIR")
    (tmp_path / "file").write_text("")
    machine.settings.write_text(f'cache-dir = "{tmp_path}/file/cache"\n')
    assert interpreters.choose(paths.system(tmp_path), False, None).interpreter is not None
    failed = _fails(machine)
    assert "uv cannot write its cache" in failed.what
    assert str(tmp_path / "file/cache") in failed.detail
    assert "cache-dir" in failed.remedy


def test_settings_that_are_no_toml_are_named(machine: Machine) -> None:
    machine.settings.write_text("index-url = \n")
    error = _fails(machine)
    assert error.what.startswith(f"uv's settings {machine.settings} cannot be read: ")
    assert re.search("line 1", error.what)


def test_the_remedy_for_a_missing_interpreter_names_what_uv_can_install(tmp_path: Path) -> None:
    """The program is there, and its list of downloads has the version; nothing is fetched."""
    remedy = interpreters.interpreter_remedy("optictl install", True, None, uv.program())
    program, *_, version = re.findall(
        r"\S+",
        remedy.partition(" && ")[0].removeprefix("sudo env UV_PYTHON_INSTALL_DIR=/opt/python "),
    )
    listed = subprocess.run(
        [program, "python", "list", "--only-downloads", "--all-versions", version],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    ).stdout
    directory = re.findall(r"/opt/python/(cpython-[^/]+)", remedy)[0]
    assert re.search(directory.replace(f"-{version}-", rf"-{re.escape(version)}\.\d+-"), listed), (
        listed
    )
