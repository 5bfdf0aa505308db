"""render-litellm --merge: a diff, a question, and nothing of the user's file lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.integration.cli.helpers import Outcome, optictl

USERS = """\
# my models
model_list:
  - model_name: jerry-xl   # the real one
    litellm_params: {model: openai/gpt-4o, api_key: sk-secret-of-the-user}
general_settings:
  master_key: sk-another-secret
"""
MAP = {"gpt-4o": {"input_cost_per_token": 2.5e-06, "output_cost_per_token": 1e-05}}
NAMES = [f"{s}-jerry-xl" for s in ("moa", "bon", "plansearch", "self_consistency")]
SECRETS = ("secret-of-the-user", "another-secret")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "litellm.yaml"
    path.write_text(USERS)
    path.chmod(0o640)
    return path


def merge(file: Path, *options: str | Path) -> Outcome:
    return optictl("render-litellm", "--merge", file, *options, home=file.parent)


def names(file: Path) -> list[str]:
    return [entry["model_name"] for entry in yaml.safe_load(file.read_text())["model_list"]]


def test_the_entries_are_written_after_the_diff(file: Path) -> None:
    done = merge(file, "--yes")
    assert (done.code, names(file)) == (0, ["jerry-xl", *NAMES])
    assert f"+++ {file}" in done.out
    assert "+  - model_name: moa-jerry-xl" in done.out
    assert "restart LiteLLM" in done.err
    assert not [secret for secret in SECRETS if secret in done.out + done.err]
    assert file.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in file.parent.iterdir() if "litellm" in path.name] == [file.name]


def test_a_second_merge_changes_nothing(file: Path) -> None:
    merge(file, "--yes")
    text = file.read_text()
    done = merge(file, "--yes")
    assert (done.code, file.read_text()) == (0, text)
    assert "No changes" in done.out


def test_an_earlier_block_is_replaced_and_the_old_file_kept(file: Path) -> None:
    merge(file, "--yes")
    text = file.read_text()
    (file.parent / "optictl.yaml").write_text("strategies: [moa]\n")
    done = merge(file, "--yes", "--config", file.parent / "optictl.yaml")
    assert (done.code, names(file)) == (0, ["jerry-xl", "moa-jerry-xl"])
    assert (file.parent / "litellm.yaml.optictl-old").read_text() == text


@pytest.mark.parametrize("options", [("--dry-run",), ()])
def test_without_a_yes_nothing_is_written(file: Path, options: tuple[str, ...]) -> None:
    done = merge(file, *options)
    assert done.code == (0 if options else 1)
    assert file.read_text() == USERS
    assert "+  - model_name: moa-jerry-xl" in done.out


def test_a_link_stays_a_link(file: Path) -> None:
    link = file.parent / "link.yaml"
    link.symlink_to(file)
    assert merge(link, "--yes").code == 0
    assert link.is_symlink()
    assert names(file) == ["jerry-xl", *NAMES]


def test_an_entry_of_an_included_file_stays_alone(file: Path) -> None:
    (file.parent / "more.yaml").write_text(
        "model_list: [{model_name: moa-jerry-xl, litellm_params: {model: openai/x}}]\n"
    )
    file.write_text(f"include: [more.yaml]\n{USERS}")
    done = merge(file, "--yes")
    assert "more.yaml:1 has moa-jerry-xl already" in done.err
    assert names(file) == ["jerry-xl", *NAMES[1:]]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (None, "does not exist"),
        ("model_list: [\n", "not valid YAML"),
        ("model_list: [{model_name: a, litellm_params: {model: openai/a}}]\n", "cannot merge"),
        (b"model_list: \xff\n", "is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_merged_into_stays(
    file: Path, text: str | bytes | None, what: str
) -> None:
    file.unlink()
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    done = merge(file, "--yes")
    assert done.code == 1
    assert what in done.err
    assert "fix" in done.err
    assert "Traceback" not in done.err
    assert (file.read_bytes() if text is not None else None) == (
        text.encode() if isinstance(text, str) else text
    )


class TestPrices:
    def info(self, file: Path, *options: str | Path) -> dict[str, float] | None:
        done = optictl("render-litellm", "--litellm-config", file, *options, home=file.parent)
        assert done.code == 0, done.err
        entries = yaml.safe_load(done.out)["model_list"]
        infos = [entry.get("model_info") for entry in entries]
        assert all(info == infos[0] for info in infos)
        assert ("No price of jerry-xl is known" in done.out) == (infos[0] is None)
        return infos[0]

    def test_those_of_the_base_models_entry(self, file: Path) -> None:
        prices = "model_info: {input_cost_per_token: 1e-06, output_cost_per_token: 0.000002}"
        file.write_text(USERS.replace("general_settings", f"    {prices}\ngeneral_settings"))
        assert self.info(file) == {"input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06}

    def test_those_of_litellms_map(self, file: Path) -> None:
        path = file.parent / "map.json"
        path.write_text(json.dumps(MAP))
        assert self.info(file, "--prices", path) == MAP["gpt-4o"]

    def test_none(self, file: Path) -> None:
        assert self.info(file) is None

    def test_a_map_that_is_none(self, file: Path) -> None:
        done = optictl(
            "render-litellm", "--prices", file, "--litellm-config", file, home=file.parent
        )
        assert done.code == 1
        assert "is not a price map" in done.err
