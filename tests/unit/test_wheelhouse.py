"""A wheelhouse: which wheels are missing, pip's index, and what people read while it works."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from optictl.cli.wheelhouse import platform_of
from optictl.errors import NoLock, OptictlError
from optictl.host import files, uv_settings, wheels
from optictl.output.console import Terminal
from optictl.output.wheelhouses import NewWheelhouse, PlannedWheelhouse
from optictl.releases import wheelhouse
from optictl.releases.targets import Pin
from optictl.releases.wheelhouse import File, Request, Wheelhouse

TARGET = platform_of("x86_64", "3.11", "2.36")


class TestPlatform:
    def test_the_c_library_is_no_later_than_the_locks_need(self) -> None:
        assert TARGET.name == "x86_64-cp311-glibc2.34"

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("i686", "3.11", "2.34"), "x86_64 or aarch64"),
            (("x86_64", "3.9", "2.34"), "CPython 3.10 to 3.14, not for 3.9"),
            (("x86_64", "3.15", "2.34"), "CPython 3.10 to 3.14, not for 3.15"),
            (("x86_64", "3", "2.34"), "two numbers with a dot"),
            (("x86_64", "3.11", "2.x"), "two numbers with a dot"),
        ],
    )
    def test_another_one_is_refused(self, words: tuple[str, str, str], said: str) -> None:
        with pytest.raises(typer.BadParameter, match=said):
            platform_of(*words)


class TestRequest:
    def test_it_has_the_closure_and_optictl_with_uv(self) -> None:
        names = {pin.name for pin in Request(TARGET, ("0.3.12",), "proxy").all()}
        assert {"optillm", "math-verify", "uv", "typer", "packaging"} <= names

    def test_two_versions_share_what_they_pin_alike(self) -> None:
        one, two = (Request(TARGET, v, "proxy").all() for v in (("0.3.12",), ("0.3.12", "0.4.0")))
        assert {pin.version for pin in two if pin.name == "optillm"} == {"0.3.12", "0.4.0"}
        assert len(one) < len(two) < 2 * len(one)
        assert len(set(two)) == len(two)

    def test_a_version_without_a_lock_names_those_with_one(self) -> None:
        with pytest.raises(NoLock, match="no lock for OptiLLM 9") as raised:
            Request(TARGET, ("9",), "proxy").all()
        assert "0.3.12" in raised.value.remedy

    def test_a_wheel_is_there_by_its_hash_and_not_by_its_name(self, tmp_path: Path) -> None:
        request = Request(TARGET, ("0.3.12",), "proxy")
        (tmp_path / "typer-1-py3-none-any.whl").write_bytes(b"something else")
        assert wheelhouse.missing(tmp_path, request) == request.all()
        assert wheelhouse.missing(tmp_path / "absent", request) == request.all()

    def test_ctrl_c_says_how_to_go_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stopped(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(wheels, "download", stopped)
        request = Request(TARGET, ("0.3.12",), "proxy")
        with pytest.raises(OptictlError, match="does not have all wheels") as raised:
            wheelhouse.complete(tmp_path, TARGET, request.all(), None, lambda _: None)
        assert raised.value.exit_code == 130
        assert raised.value.remedy.startswith("run the command again")

    def test_the_requirements_of_optictl_have_a_hash_for_each(self) -> None:
        text = wheelhouse._requirements(Request(TARGET, ("0.3.12",), "proxy"), "ab")
        lines = text.splitlines()
        assert all(" --hash=sha256:" in line for line in lines)
        assert lines[-1].startswith("optictl==")
        assert lines[-1].endswith(" --hash=sha256:ab")
        assert not any(line.startswith("optillm==") for line in lines)


class TestIndex:
    @pytest.mark.parametrize(
        ("tables", "environ", "variables"),
        [
            ([], {}, {}),
            ([{"index-url": "https://a/simple"}], {}, {"PIP_INDEX_URL": "https://a/simple"}),
            (
                [{"index": [{"url": "https://a", "default": True}, {"url": "https://b"}]}],
                {},
                {"PIP_INDEX_URL": "https://a", "PIP_EXTRA_INDEX_URL": "https://b"},
            ),
            (
                [{"index-url": "https://file"}],
                {"UV_DEFAULT_INDEX": "https://variable", "UV_INDEX": "own=https://c https://d"},
                {
                    "PIP_INDEX_URL": "https://variable",
                    "PIP_EXTRA_INDEX_URL": "https://c https://d",
                },
            ),
            (
                [{"find-links": ["/srv/wheels"], "no-index": True}],
                {},
                {"PIP_FIND_LINKS": "/srv/wheels", "PIP_NO_INDEX": "1"},
            ),
            # without a directory, nothing could be installed
            ([{"no-index": True}], {}, {}),
        ],
    )
    def test_pip_gets_the_index_of_uv(
        self, tables: list[dict[str, Any]], environ: dict[str, str], variables: dict[str, str]
    ) -> None:
        assert uv_settings.pip_variables(tables, environ) == variables


class TestProgress:
    def test_each_file_counts_and_the_rest_is_kept_for_the_error(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(wheels, "_REPORT_EVERY", 0)
        lines = [
            "Collecting a==1\n",
            "  Downloading a-1-py3-none-any.whl (12 kB)\n",
            "Processing /somewhere/b-2-py3-none-any.whl (from -r lock.txt (line 2))\n",
            "ERROR: no c\n",
        ]
        said: list[str] = []
        assert wheels.report(lines, 3, said.append) == "Collecting a==1\nERROR: no c\n"
        assert said == ["1 of 3: a-1-py3-none-any.whl, 12 kB", "2 of 3: b-2-py3-none-any.whl"]


class TestReports:
    MADE = Wheelhouse(
        TARGET.name,
        ["0.3.12"],
        Path("/srv/my wheels"),
        "0.1.0-ab",
        "optictl-ab.txt",
        [File("a.whl", "00", 2_000_000)],
    )

    def test_the_commands_for_the_host(self, capsys: pytest.CaptureFixture[str]) -> None:
        NewWheelhouse(self.MADE, "3.11").show(Terminal())
        said = capsys.readouterr().out
        assert "/srv/my wheels: 1 files, 2 MB" in said
        assert (
            "  sudo /opt/optictl/bin/pip install --no-index --find-links 'my wheels'"
            " -r 'my wheels'/optictl-ab.txt\n" in said
        )
        assert "install --wheelhouse 'my wheels' --python /usr/bin/python3.11" in said

    def test_the_commands_of_the_guide_are_the_printed_ones(self) -> None:
        page = (Path(__file__).parents[2] / "docs/guides/air-gapped.md").read_text()
        flat = page.replace("optictl-*", "optictl-ab")
        made = Wheelhouse(**{**vars(self.MADE), "directory": Path("/srv/wheels")})
        for line in NewWheelhouse(made, "3.11")._on_the_host():
            assert line.replace("/opt/optictl/bin/optictl", "optictl") in flat

    def test_json_has_the_names_of_roles_and_of_scripts(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Terminal("wheelhouse", "json").finish(NewWheelhouse(self.MADE, "3.11"))
        (item,) = json.loads(capsys.readouterr().out)["results"]
        assert item["data"]["version"] == "0.3.12"
        assert item["data"]["files"] == [{"name": "a.whl", "sha256": "00", "size": 2_000_000}]

    def test_a_dry_run_names_every_wheel(self, capsys: pytest.CaptureFixture[str]) -> None:
        lacking = [Pin("a", "1", frozenset("x")), Pin("b", "2", frozenset("y"))]
        report = PlannedWheelhouse(Path("/srv/wheels"), TARGET, lacking, 5)
        report.show(Terminal())
        assert capsys.readouterr().out == (
            "download a 1\ndownload b 2\n"
            "/srv/wheels: 2 wheels to download, 3 are there, for x86_64-cp311-glibc2.34\n"
        )
        (item,) = report.results(Terminal())
        assert (item["data"]["missing"], item["data"]["present"]) == (["a==1", "b==2"], 3)


def test_a_digest_of_a_wheel_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a-1-py3-none-any.whl").write_bytes(b"a")
    (tmp_path / "a.txt").write_bytes(b"b")
    assert list(wheels.digests(tmp_path)) == [files.sha256(tmp_path / "a-1-py3-none-any.whl")]
