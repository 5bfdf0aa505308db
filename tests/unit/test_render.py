"""Rendered artefacts: whole ones against golden files, and what each must mean."""

from __future__ import annotations

import configparser
import shlex
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from jinja2 import StrictUndefined, UndefinedError

from optictl.deployment import artefacts as deployment_artefacts
from optictl.deployment import paths, render
from optictl.deployment.config import Config
from optictl.deployment.config_sections import Effect, Limits, Streaming
from optictl.deployment.paths import Paths
from optictl.deployment.render import Host
from optictl.guard import invariants, settings
from tests.unit.golden_cases import ARTEFACTS, CASES, GOLDEN, artefacts, case

EVERY_CASE = pytest.mark.parametrize("name", list(CASES))


class TestGolden:
    @EVERY_CASE
    def test_whole_artefacts(self, name: str) -> None:
        """After a wanted change: python -m tests.unit.regenerate_golden"""
        for path, text in artefacts(name):
            assert text == path.read_text(encoding="utf-8"), path.relative_to(GOLDEN)

    def test_no_golden_file_is_left_over(self) -> None:
        wanted = {path for name in CASES for path, _ in artefacts(name)}
        assert {path for path in GOLDEN.rglob("*") if path.is_file()} == wanted

    @EVERY_CASE
    def test_they_are_clean_text(self, name: str) -> None:
        for path, text in artefacts(name):
            assert text.endswith("\n"), path
            assert not text.endswith("\n\n"), path
            assert "\t" not in text, path
            assert [line for line in text.splitlines() if line != line.rstrip()] == [], path


def unit_lines(text: str) -> list[str]:
    """A unit's assignments, without comments and with joined lines, as systemd reads them."""
    joined = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace(
        "\\\n", " "
    )
    return [line.strip() for line in joined.splitlines() if line.strip()]


def setting(text: str, name: str) -> str:
    """The one value of a setting of a unit."""
    values = [line.partition("=")[2] for line in unit_lines(text) if line.startswith(f"{name}=")]
    assert len(values) == 1, f"{name} stands {len(values)} times"
    return values[0]


def exec_start(text: str) -> list[str]:
    """The words that systemd would start: quotes taken off, %% and $$ undone."""
    return [
        word.replace("%%", "%").replace("$$", "$")
        for word in shlex.split(setting(text, "ExecStart"))
    ]


def flags(words: list[str]) -> dict[str, str]:
    return dict(zip(words[0::2], words[1::2], strict=True))


class TestUnit:
    def test_every_flag_of_the_specification_is_explicit(self) -> None:
        words = exec_start(render.unit(Config(), paths.system()))
        assert words[:3] == [
            "/opt/optillm-proxy/current/.venv/bin/python",
            "-I",
            "/opt/optillm-proxy/current/guard",
        ]
        given = flags(words[3:])
        assert given["--host"] == "127.0.0.1"
        assert given["--port"] == "4020"
        assert given["--base-url"] == "http://127.0.0.1:4000/v1"
        assert given["--approach"] == "proxy"
        assert given["--model"] == "jerry-xl"
        assert given["--optillm-api-key"] == "@${CREDENTIALS_DIRECTORY}/proxy_key"

    @EVERY_CASE
    def test_the_guard_understands_every_flag(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read, places = case(name)
        (tmp_path / "proxy_key").write_text("a key\n")
        (tmp_path / "upstream_env").write_text("OPENAI_API_KEY=another\n")
        monkeypatch.setenv(
            "OPENAI_API_KEY", ""
        )  # the guard puts it there: it is taken back after the test
        words = [
            word.replace("@${CREDENTIALS_DIRECTORY}/", f"@{tmp_path}/")
            for word in exec_start(render.unit(read, places))[3:]
        ]
        told = settings.parse(words)
        assert (told.host, told.port, told.base_url) == (
            read.listen.host,
            read.listen.port,
            read.upstream.base_url,
        )
        assert (told.approach, told.model, told.proxy_key) == (read.approach, read.model, "a key")
        assert (told.strategies, told.base_models) == (read.strategies, read.base_models)
        assert (told.max_retries, told.request_timeout, told.drain_timeout) == (
            read.upstream.max_retries,
            read.timeouts.request,
            read.timeouts.drain,
        )
        assert told.max_upstream_calls == read.limits.max_upstream_calls
        assert told.max_body_bytes == read.limits.max_body_bytes
        assert (told.max_in_flight, told.max_traces) == (
            read.limits.max_in_flight,
            read.limits.max_traces,
        )
        assert told.workers == read.workers
        assert told.parallel_calls == read.limits.parallel_calls
        assert told.progress == read.streaming.progress
        assert told.effect == read.effect.fixes
        assert told.budget_tokens == {
            "critique": read.effect.critique_tokens,
            "rating": read.effect.rating_tokens,
        }

    def test_the_fixes_that_are_on_are_named_and_none_if_all_are_off(self) -> None:
        given = flags(exec_start(render.unit(Config(), paths.system()))[3:])
        assert given["--effect"] == "samples,budgets,ratings,votes,caches,thinking"
        assert given["--budget-tokens"] == "critique=4096,rating=1024"
        some = Config(effect=Effect(samples=False, thinking=False))
        assert flags(exec_start(render.unit(some, paths.system()))[3:])["--effect"] == (
            "budgets,ratings,votes,caches"
        )
        none = Config(effect=Effect(**dict.fromkeys(settings.FIXES, False)))
        assert flags(exec_start(render.unit(none, paths.system()))[3:])["--effect"] == "none"

    def test_the_guard_has_the_same_fixes_and_defaults_as_the_configuration(self) -> None:
        effect = Effect()
        assert effect.fixes == settings.FIXES
        assert {
            "critique": effect.critique_tokens,
            "rating": effect.rating_tokens,
        } == settings.BUDGET_TOKENS

    def test_the_guard_has_the_same_parallel_calls_and_progress_as_the_configuration(self) -> None:
        assert Limits().parallel_calls == settings.PARALLEL_CALLS
        progress = Streaming.model_fields["progress"]
        assert get_args(progress.annotation) == settings.PROGRESS
        assert progress.default == settings.PROGRESS[0]

    def test_a_guard_from_before_parallel_calls_starts_without_the_flags(self) -> None:
        older = tuple(set(settings.flags()) - {"--parallel-calls", "--progress"})
        text = render.unit(Config(), paths.system(), Host(flags=older))
        assert "--parallel-calls" not in text
        assert "--progress" not in text
        assert "--effect" in text

    def test_the_service_may_have_the_threads_of_its_parallel_calls(self) -> None:
        def tasks(**limits: int) -> int:
            text = render.unit(Config(limits=Limits(**limits), workers=2), paths.system())
            return int(setting(text, "TasksMax"))

        grown = tasks(max_in_flight=10, parallel_calls=64) - tasks(
            max_in_flight=10, parallel_calls=1
        )
        assert grown == 63 * 10 * 2

    @pytest.mark.parametrize(
        ("limits", "files"),
        [
            (Limits(), 4096),
            (
                Limits(max_in_flight=512, parallel_calls=64, max_connections=2048),
                512 + 2048 + 2**15,
            ),
        ],
    )
    def test_the_service_may_have_the_connections_of_its_parallel_calls(
        self, limits: Limits, files: int
    ) -> None:
        unit = render.unit(Config(limits=limits, workers=2), paths.system())
        assert int(setting(unit, "LimitNOFILE")) == files

    def test_run_starts_what_the_unit_starts(self) -> None:
        read, places = case("tuned")
        words = exec_start(render.unit(read, places))
        command = render.command(read, places.current, "@${CREDENTIALS_DIRECTORY}/proxy_key")
        assert words[: len(command)] == command
        # what only systemd can give: credentials, and the way out of a sealed service; and what
        # trial.running adds itself
        own = {"--upstream-env", "--upstream-socket", "--deployment"}
        assert set(words[len(command) :: 2]) <= own

    @EVERY_CASE
    def test_it_is_a_supervised_service_with_a_journal(self, name: str) -> None:
        read, places = case(name)
        text = render.unit(read, places)
        assert setting(text, "Restart") == "always"
        assert setting(text, "StandardOutput") == setting(text, "StandardError") == "journal"
        assert setting(text, "EnvironmentFile").replace("%%", "%") == str(places.env)
        for credential in (f"proxy_key:{places.proxy_key}", f"upstream_env:{places.env}"):
            assert f"LoadCredential={credential}".replace("%", "%%") in unit_lines(text)
        assert setting(text, "WorkingDirectory").replace("%%", "%") == str(places.current / "work")
        assert int(setting(text, "TimeoutStopSec")) > read.timeouts.drain
        assert "optillm-proxy.socket" in setting(text, "Requires").split()
        assert setting(text, "Type") == "notify"
        assert int(setting(text, "WatchdogSec")) > 0

    @EVERY_CASE
    def test_home_leads_to_the_provider_file(self, name: str) -> None:
        read, places = case(name)
        variables = dict(
            word.split("=", 1)
            for word in shlex.split(setting(render.unit(read, places), "Environment"))
        )
        home = Path(variables["HOME"].replace("%%", "%"))
        wanted = {a.path: a for a in deployment_artefacts.rendered_files(read, places, Host())}
        assert wanted[home / ".optillm/proxy_config.yaml"].text == render.proxy_config(read)
        # for people, where OptiLLM's documentation says
        link = wanted[places.proxy_config.parent]
        assert link.link
        assert (
            link.path.parent / link.text / "proxy_config.yaml"
            == home / ".optillm/proxy_config.yaml"
        )

    def test_another_upstream_is_another_home(self) -> None:
        """So a unit and the provider file that it needs change in one step."""
        places = paths.system()
        homes = {
            render.home(Config().moved(4020, f"http://127.0.0.1:{port}/v1"), places)
            for port in (4000, 4001)
        }
        assert len(homes) == 2

    def test_an_older_guard_is_given_the_flags_that_it_knows(self) -> None:
        text = render.unit(
            Config(), paths.system(), Host(flags=("--host", "--port", "--optillm-api-key"))
        )
        assert render.flags_in(text) == {"--host", "--port", "--optillm-api-key"}
        assert render.flags_in(render.unit(Config(), paths.system())) <= set(settings.flags())

    def test_a_sibling_is_the_same_in_all_that_counts(self) -> None:
        text = render.unit(Config(), paths.system())
        sibling = render.sibling(text)
        assert "[Install]" in text
        assert "[Install]" not in sibling
        different = set(unit_lines(text)) ^ set(unit_lines(sibling))
        assert {line.partition("=")[0] for line in different} == {
            "Description",
            "[Install]",
            "WantedBy",
        }

    def test_the_system_service_is_not_root(self) -> None:
        text = render.unit(Config(), paths.system())
        assert setting(text, "User") == "optillm-proxy"
        assert setting(text, "DynamicUser") == "yes"
        assert setting(text, "NoNewPrivileges") == "yes"
        assert setting(text, "IPAddressDeny") == "any"
        assert setting(text, "PrivateNetwork") == "yes"
        assert setting(text, "RestrictAddressFamilies") == "AF_UNIX"
        assert setting(text, "WantedBy") == "multi-user.target"

    def test_the_other_isolation_may_reach_this_machine_and_no_other(self) -> None:
        text = render.unit(*case("tuned"))
        assert setting(text, "IPAddressDeny") == "any"
        assert setting(text, "IPAddressAllow") == "localhost"
        assert "RootDirectory=" not in text
        assert "--upstream-socket" not in text

    @pytest.mark.parametrize(("version", "known"), [(252, False), (254, True)])
    def test_what_the_hosts_systemd_would_ignore_is_left_out(
        self, version: int, known: bool
    ) -> None:
        assert (
            "RestartSteps=" in render.unit(Config(), paths.system(), render.Host(systemd=version))
        ) is known

    def test_an_interpreter_outside_of_usr_is_seen_in_the_empty_root(self) -> None:
        text = render.unit(Config(), paths.system(), render.Host(interpreter=Path("/opt/python")))
        assert "BindReadOnlyPaths=/opt/python" in unit_lines(text)

    def test_a_users_service_is_that_users(self) -> None:
        lines = unit_lines(render.unit(*case("user")))
        assert not [
            line for line in lines if line.startswith(("User=", "DynamicUser=", "ProtectSystem="))
        ]
        assert "WantedBy=default.target" in lines

    @pytest.mark.parametrize(
        ("name", "protected"), [("defaults", "yes"), ("root", "yes"), ("below-a-home", "no")]
    )
    def test_homes_are_hidden_unless_the_deployment_lies_in_one(
        self, name: str, protected: str
    ) -> None:
        assert setting(render.unit(*case(name)), "ProtectHome") == protected

    @EVERY_CASE
    def test_the_socket_is_on_this_machine_only(self, name: str) -> None:
        read, places = case(name)
        assert (
            setting(render.socket(read, places), "ListenStream") == f"127.0.0.1:{read.listen.port}"
        )

    @EVERY_CASE
    def test_units_are_ini_files_with_no_unfilled_value(self, name: str) -> None:
        for text in (render.unit(*case(name)), render.socket(*case(name))):
            parser = configparser.RawConfigParser(strict=False)
            parser.read_string("\n".join(unit_lines(text)))
            empty = {
                option
                for part in parser.sections()
                for option, value in parser.items(part)
                if not value
            }
            assert empty <= {"capabilityboundingset", "ambientcapabilities"}


class TestTimer:
    def test_the_unit_runs_the_program_that_installs_it(self) -> None:
        read, places = case("tuned")
        host = Host(program=Path("/opt/my tools/100%/optictl"))
        words = render.check_command(render.check_service(read, places, host))
        assert words[:3] == ["/opt/my tools/100%/optictl", "check", "--quiet"]
        assert flags(words[-8:]) == {
            "--damp": "%t/optillm-proxy-check/state",
            "--fail-after": "5",
            "--well-after": "1",
            "--textfile": read.monitoring.textfile,
        }
        assert render.check_textfile(render.check_service(read, places)) == Path(
            str(read.monitoring.textfile)
        )

    @pytest.mark.parametrize(
        "text",
        ["", "[Service]\n", "ExecStart=\n", 'ExecStart="a\n', "ExecStart=optictl --textfile\n"],
    )
    def test_an_edited_unit_names_nothing(self, text: str) -> None:
        assert render.check_textfile(text) is None

    def test_homes_and_tmp_are_hidden_unless_something_needed_lies_there(self) -> None:
        places = paths.system()
        assert setting(render.check_service(Config(), places), "ProtectHome") == "yes"
        assert setting(render.check_service(Config(), places), "PrivateTmp") == "yes"
        in_tmp = render.check_service(Config(), places, Host(program=Path("/var/tmp/x/optictl")))
        assert setting(in_tmp, "PrivateTmp") == "no"
        at_home = Config.model_validate({"litellm": {"config": "/home/jerry/litellm.yaml"}})
        assert setting(render.check_service(at_home, places), "ProtectHome") == "no"


def loaded(text: str) -> Any:
    return yaml.safe_load(text)


class TestProxyConfig:
    @EVERY_CASE
    def test_it_names_litellm_and_nothing_else(self, name: str) -> None:
        read, _ = case(name)
        providers = loaded(render.proxy_config(read))["providers"]
        assert providers == [
            {"name": "litellm", "base_url": read.upstream.base_url, "api_key": "${OPENAI_API_KEY}"}
        ]

    @EVERY_CASE
    def test_the_guard_would_start_with_it(self, name: str) -> None:
        read, _ = case(name)
        assert (
            invariants.proxy_config_problems(render.proxy_config(read), read.upstream.base_url)
            == []
        )

    @EVERY_CASE
    def test_its_timeouts_fit_deep_answers(self, name: str) -> None:
        read, _ = case(name)
        data = loaded(render.proxy_config(read))
        assert data["timeouts"]["request"] == read.timeouts.request
        assert data["queue"]["timeout"] >= read.timeouts.request

    def test_one_bad_request_does_not_turn_everybody_away(self) -> None:
        data = loaded(render.proxy_config(Config()))
        assert data["routing"]["health_check"]["enabled"] is False
        assert data["monitoring"]["track_errors"] is False


class TestLiteLLM:
    @EVERY_CASE
    def test_it_publishes_every_strategy_of_every_base_model(self, name: str) -> None:
        read, places = case(name)
        entries = loaded(render.litellm(read, places))["model_list"]
        assert [(e["model_name"], e["litellm_params"]["model"]) for e in entries] == [
            (published, f"custom_openai/{target}") for published, target in read.published.items()
        ]
        assert len(entries) == len(read.strategies) * len(read.base_models) + len(read.publish)

    @EVERY_CASE
    def test_each_entry_waits_long_enough_and_never_retries(self, name: str) -> None:
        read, places = case(name)
        for entry in loaded(render.litellm(read, places))["model_list"]:
            given = entry["litellm_params"]
            assert given["api_base"] == f"http://127.0.0.1:{read.listen.port}/v1"
            assert given["timeout"] == given["stream_timeout"] > read.timeouts.request
            assert given["num_retries"] == given["max_retries"] == 0

    def test_the_key_is_a_reference_the_guard_would_not_mind(self) -> None:
        for entry in loaded(render.litellm(Config(), paths.system()))["model_list"]:
            scheme, _, variable = entry["litellm_params"]["api_key"].partition("/")
            assert scheme == "os.environ"
            assert invariants.forbidden_variables([variable]) == {}

    def test_names_that_yaml_would_take_for_something_else_stay_names(self) -> None:
        read = Config(
            model="tom",
            base_models=("tom", "end:"),
            strategies=("moa",),
            publish={"123": "moa-tom", "no": "moa-end:"},
        )
        entries = loaded(render.litellm(read, paths.system()))["model_list"]
        assert [(e["model_name"], e["litellm_params"]["model"]) for e in entries] == [
            ("moa-tom", "custom_openai/moa-tom"),
            ("moa-end:", "custom_openai/moa-end:"),
            ("123", "custom_openai/moa-tom"),
            ("no", "custom_openai/moa-end:"),
        ]


class TestEnv:
    @EVERY_CASE
    def test_it_holds_one_variable_without_a_value(self, name: str) -> None:
        lines = [
            line for line in render.env(case(name)[0]).splitlines() if not line.startswith("#")
        ]
        assert lines == ["OPENAI_API_KEY="]


class TestTemplates:
    def test_an_undefined_name_is_an_error(self) -> None:
        environment = render._environment()
        assert environment.undefined is StrictUndefined
        with pytest.raises(UndefinedError):
            environment.from_string("{{ nobody_set_this }}").render()

    def test_each_uses_something_that_must_be_given(self) -> None:
        for path in render.template_directory().glob("*.j2"):
            with pytest.raises(UndefinedError):
                render._render(path.name)

    def test_every_template_is_golden_tested(self) -> None:
        assert {path.stem for path in render.template_directory().glob("*.j2")} == set(ARTEFACTS)

    def test_rendering_knows_no_secret(self) -> None:
        """Nothing that looks like a key: all text follows from the configuration and the paths."""
        for name in CASES:
            for path, text in artefacts(name):
                for line in text.splitlines():
                    word = line.split("#")[0]
                    assert "sk-" not in word, (path, line)
                    assert "optillm-proxy-key" not in word, (path, line)


def test_a_deployment_below_root_names_nothing_outside_of_it() -> None:
    """`--root DIR` moves all of it: no path of the system's own deployment is left in a unit."""
    places: Paths = paths.system(Path("/srv/elsewhere"))
    for text in (render.unit(Config(), places), render.litellm(Config(), places)):
        for own in ("/etc/optillm-proxy", "/opt/optillm-proxy", "/var/lib/optillm-proxy"):
            assert own not in text.replace(f"/srv/elsewhere{own}", "")
