"""The configuration as a file: any text is read or refused, and what is written reads back."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from optictl.deployment import config_yaml, render
from optictl.deployment.config import Config
from optictl.errors import ConfigError, OptictlError
from tests.unit.config_problems import only_problem, places, problems


class TestBadFiles:
    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("a: [", 1),
            ("listen:\n\t port: 1", 2),
            ("model: a\n---\nmodel: b", 2),
            ("? [a]\n: b", 1),
            ("a: !!python/object/apply:os.getcwd []", 1),
            ("model: a\nb: !mine c", 2),
            ("model: \x00", None),
            ("model: 2024-13-45", None),
            ("model: !!int many", None),
            ("listen: {port: " + "1" * 5000 + "}", None),
            ("[" * 5000, None),
        ],
    )
    def test_are_one_problem(self, text: str, line: int | None) -> None:
        problem = only_problem(text)
        assert "YAML" in problem.message
        assert line is None or problem.line == line

    @pytest.mark.parametrize("text", ["[]", "- model: x", "5", "jerry-xl", "'null'", "&a [*a]"])
    def test_the_root_is_a_mapping(self, text: str) -> None:
        assert "mapping" in only_problem(text).message

    def test_a_file_that_refers_to_itself(self) -> None:
        assert places("publish: &a\n  x: *a")[0][0].startswith("publish")

    def test_a_file_that_unfolds_without_end(self) -> None:
        text = "a0: &a0 [x, x]\n" + "".join(
            f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 6)
        )
        assert {p.path for p in problems(text + "listen: *a5\n")} == {
            "listen",
            *(f"a{i}" for i in range(6)),
        }

    def test_a_value_is_quoted_in_short(self) -> None:
        assert len(str(only_problem("listen: {port: 0x" + "f" * 5000 + "}"))) < 200
        assert len(str(only_problem("approach: " + "x" * 5000))) < 200


class TestRoundTrip:
    FULL = """\
listen: {port: 4120}
upstream: {base_url: "http://localhost:4100/v1", max_retries: 2}
model: tom
base_models: [tom, "123", "ollama/llama3:8b", "null", "2024-01-01", "1e3", "end:"]
approach: auto
strategies: [re2, moa, mine]
optillm: {version: 0.3.12, profile: full}
publish: {boost-plan: moa-tom, "1": re2-123}
plugins: [plugins/mine.py, "/opt/my plugins/it's #1.py"]
litellm: {config: /etc/litellm/config.yaml, env: "/etc/litellm/env: 2"}
allow_code_execution: true
timeouts: {request: 900, drain: 0}
limits: {max_upstream_calls: 10, max_body_bytes: 2048}
isolation: loopback
"""

    @pytest.mark.parametrize("text", ["", FULL], ids=["defaults", "everything"])
    def test_what_is_rendered_reads_back_as_the_same(self, text: str) -> None:
        read = config_yaml.parse(text, "f")
        assert config_yaml.parse(render.configuration(read), "again") == read


class TestAnotherVersion:
    """What an upgrade writes into the operator's file: one word, and nothing else."""

    @pytest.mark.parametrize(
        ("text", "edited"),
        [
            ("optillm: {version: 0.3.12}  # mine\n", "optillm: {version: 0.3.13}  # mine\n"),
            (
                'optillm:\n  version: "0.3.12"   # pinned\nmodel: jerry-xl\n',
                "optillm:\n  version: 0.3.13   # pinned\nmodel: jerry-xl\n",
            ),
            ("optillm: {profile: proxy}\n", "optillm: {version: 0.3.13, profile: proxy}\n"),
            (
                "optillm:\n  # why\n  profile: proxy\n",
                "optillm:\n  # why\n  version: 0.3.13\n  profile: proxy\n",
            ),
            (
                "# mine\nmodel: jerry-xl\n",
                "# mine\nmodel: jerry-xl\n\noptillm:\n  version: 0.3.13\n",
            ),
            ("", "\n\noptillm:\n  version: 0.3.13\n"),
            ("optillm: {version: 0.3.13}\n", "optillm: {version: 0.3.13}\n"),
        ],
    )
    def test_every_other_sign_stays(self, text: str, edited: str) -> None:
        assert config_yaml.with_version(text, "optictl.yaml", "0.3.13") == edited
        assert config_yaml.parse(edited, "optictl.yaml").optillm.version == "0.3.13"

    def test_a_version_that_yaml_would_take_for_a_number_is_quoted(self) -> None:
        assert (
            config_yaml.with_version("optillm: {version: 0.3.12}\n", "x", "1.0")
            == 'optillm: {version: "1.0"}\n'
        )

    def test_what_cannot_be_edited_is_told(self) -> None:
        with pytest.raises(OptictlError, match=r"cannot set optillm\.version"):
            config_yaml.with_version("optillm: &x {}\n", "optictl.yaml", "0.3.13")


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.dates()
    | st.binary(max_size=4)
)
_KEYS = st.sampled_from(
    [*Config.model_fields, "port", "base_url", "request", "version", "config"]
) | st.text(max_size=6)
_TREES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(_KEYS | st.integers(), inner, max_size=6)
    ),
    max_leaves=20,
)


class TestAnything:
    @staticmethod
    def judge(text: str) -> None:
        """Either a configuration that renders, or a list of problems; nothing else ever."""
        try:
            read = config_yaml.parse(text, "f")
        except ConfigError as refused:
            told = [str(problem) for problem in refused.problems]
        else:
            assert config_yaml.parse(render.configuration(read), "again") == read
            return
        assert told
        assert all(told)

    @given(st.dictionaries(_KEYS, _TREES, max_size=6) | _TREES)
    def test_that_yaml_can_hold(self, tree: Any) -> None:
        self.judge(yaml.safe_dump(tree, allow_unicode=True))

    @given(st.text(max_size=60) | st.text(alphabet="&*!|>-?:[]{},#%@`'\"\n\t ~01aé", max_size=40))
    def test_that_text_can_hold(self, text: str) -> None:
        self.judge(text)

    @given(
        st.fixed_dictionaries(
            {},
            optional={
                "model": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,8}", fullmatch=True),
                "plugins": st.lists(st.text(min_size=1, max_size=20), max_size=3),
                "publish": st.dictionaries(
                    st.text(min_size=1, max_size=8), st.just("moa-jerry-xl"), max_size=2
                ),
                "litellm": st.fixed_dictionaries({"config": st.none() | st.text(max_size=20)}),
            },
        )
    )
    def test_that_may_be_valid(self, tree: dict[str, Any]) -> None:
        self.judge(yaml.safe_dump(tree, allow_unicode=True))
