"""Which of the machine's settings hold for optictl's calls of uv, and what a failure of uv says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from optictl.host.uv import failure
from optictl.host.uv_settings import (
    anchored,
    config_places,
    kept_environment,
    kept_settings,
    parse_toml,
    redacted,
)

HOME = Path("/home/jerry")


def kept(*texts: str) -> dict[str, Any]:
    """The settings that are kept of several uv.toml, read back."""
    return parse_toml(kept_settings([parse_toml(text) for text in texts]))


class TestKeptSettings:
    @pytest.mark.parametrize(
        "text",
        [
            'exclude-newer = "2020-01-01"',
            'exclude-newer-package = {six = "2020-01-01"}',
            'python-preference = "only-managed"',
            'python-downloads = "automatic"',
            "offline = true",
            "no-index = true",
            'link-mode = "symlink"',
            'resolution = "lowest"',
            "no-binary = true",
            'required-version = "<0.5"',
            'constraint-dependencies = ["six<1"]',
            "[pip]\nrequire-hashes = false\nno-deps = true\nuniversal = false\n",
            (
                '[pip]\nexclude-newer = "2020-01-01"\nno-binary = [":all:"]\n'
                'target = "/elsewhere"\n'
                "no-index = true\n"
            ),
        ],
    )
    def test_what_changes_the_outcome_is_not(self, text: str) -> None:
        assert kept_settings([parse_toml(text)]) == ""

    @pytest.mark.parametrize(
        "text",
        [
            '[[index]]\nname = "in house"\nurl = "https://me:p%40ss@index.example/simple"\n'
            "default = true\n"
            'ignore-error-codes = [403]\ncache-control = {api = "max-age=600"}\n',
            (
                'index-url = "https://index.example/simple"\n'
                'extra-index-url = ["https://other.example/simple"]\n'
            ),
            'find-links = ["/srv/wheels"]\nno-index = true\n',
            'index-strategy = "unsafe-best-match"\nkeyring-provider = "subprocess"\n',
            (
                'allow-insecure-host = ["index.example:8080"]\nnative-tls = true\n'
                "system-certs = true\n"
            ),
            (
                'http-proxy = "http://proxy:3128"\nhttps-proxy = "http://proxy:3128"\n'
                'no-proxy = ["localhost"]\n'
            ),
            (
                'cache-dir = "/srv/uv \\"cache\\" \u00e9\\u007f\\\\"\nno-cache = true\n'
                "concurrent-downloads = 4\n"
            ),
            (
                '[pip]\nindex-url = "https://index.example/simple"\nfind-links = ["/srv/wheels"]\n'
                "no-index = true\n"
            ),
            'no-index = true\n[pip]\nfind-links = ["/srv/wheels"]\n',
            '[[pip.index]]\nurl = "https://index.example/simple"\n',
        ],
    )
    def test_what_leads_to_an_index_is_kept_as_it_is(self, text: str) -> None:
        assert kept(text) == parse_toml(text)

    def test_the_user_goes_before_the_system(self) -> None:
        """As uv combines two files: one value of a kind is the first's, lists are joined."""
        user = 'index-url = "https://user/simple"\nextra-index-url = ["https://a/simple"]\n'
        user += '[pip]\nindex-strategy = "first-index"\n'
        system = (
            'index-url = "https://system/simple"\nextra-index-url = ["https://b/simple"]\n'
            "native-tls = true\n"
            '[pip]\nindex-strategy = "unsafe-best-match"\nkeyring-provider = "disabled"\n'
        )
        assert kept(user, system) == {
            "index-url": "https://user/simple",
            "extra-index-url": ["https://a/simple", "https://b/simple"],
            "native-tls": True,
            "pip": {"index-strategy": "first-index", "keyring-provider": "disabled"},
        }

    def test_an_index_in_a_relative_place_stays_there(self) -> None:
        text = 'find-links = ["wheels", "/srv", "https://x/y"]\nindex = [{url = "./simple"}]\n'
        text += '[pip]\nfind-links = ["~/w", "w"]\n'
        assert anchored(parse_toml(text), Path("/etc/uv")) == {
            "find-links": ["/etc/uv/wheels", "/srv", "https://x/y"],
            "index": [{"url": "/etc/uv/simple"}],
            "pip": {"find-links": ["~/w", "/etc/uv/w"]},
        }

    def test_a_file_that_is_no_toml_says_where(self) -> None:
        with pytest.raises(ValueError, match="line 2"):
            parse_toml("native-tls = true\nindex-url = \n")


class TestPlaces:
    def test_the_users_and_the_systems(self) -> None:
        user, system = config_places({}, HOME)
        assert user == [HOME / ".config/uv/uv.toml"]
        assert system == [Path("/etc/xdg/uv/uv.toml"), Path("/etc/uv/uv.toml")]

    def test_where_xdg_says(self) -> None:
        environ = {"XDG_CONFIG_HOME": "/c", "XDG_CONFIG_DIRS": "/a:/b"}
        assert config_places(environ, HOME) == [
            [Path("/c/uv/uv.toml")],
            [Path("/a/uv/uv.toml"), Path("/b/uv/uv.toml"), Path("/etc/uv/uv.toml")],
        ]

    def test_a_file_that_was_named_takes_the_place_of_all(self) -> None:
        assert config_places({"UV_CONFIG_FILE": "/mine.toml"}, HOME) == [[Path("/mine.toml")]]

    def test_files_that_uv_is_told_to_leave_alone(self) -> None:
        assert config_places({"UV_NO_CONFIG": "1"}, HOME) == []
        assert config_places({"UV_NO_SYSTEM_CONFIG": "true"}, HOME) == [
            [HOME / ".config/uv/uv.toml"]
        ]


class TestEnvironment:
    @pytest.mark.parametrize(
        "name",
        [
            *(
                "UV_EXCLUDE_NEWER",
                "UV_OFFLINE",
                "UV_PYTHON",
                "UV_PYTHON_PREFERENCE",
                "UV_MANAGED_PYTHON",
                "UV_LINK_MODE",
            ),
            *(
                "UV_CONFIG_FILE",
                "UV_NO_CONFIG",
                "UV_CONSTRAINT",
                "UV_OVERRIDE",
                "UV_NO_BINARY",
                "UV_SYSTEM_PYTHON",
            ),
            *(
                "UV_REQUIRE_HASHES",
                "UV_NO_VERIFY_HASHES",
                "UV_PREVIEW",
                "UV_RESOLUTION",
                "UV_VENV_SEED",
                "UV_WHATEVER_IS_NEW",
            ),
            *(
                "VIRTUAL_ENV",
                "PYTHONPATH",
                "PYTHONHOME",
                "PYC_INVALIDATION_MODE",
                "FORCE_COLOR",
                "UV_INDEX__USERNAME_X",
            ),
        ],
    )
    def test_what_changes_the_outcome_is_dropped(self, name: str) -> None:
        assert name not in kept_environment({name: "1"})

    @pytest.mark.parametrize(
        "name",
        [
            *(
                "UV_DEFAULT_INDEX",
                "UV_INDEX",
                "UV_INDEX_URL",
                "UV_EXTRA_INDEX_URL",
                "UV_FIND_LINKS",
                "UV_INDEX_STRATEGY",
            ),
            *(
                "UV_INDEX_INHOUSE_USERNAME",
                "UV_INDEX_INHOUSE_PASSWORD",
                "UV_KEYRING_PROVIDER",
                "UV_INSECURE_HOST",
            ),
            *(
                "UV_CACHE_DIR",
                "UV_NATIVE_TLS",
                "UV_SYSTEM_CERTS",
                "UV_HTTP_TIMEOUT",
                "UV_PYTHON_INSTALL_DIR",
            ),
            *(
                "SSL_CERT_FILE",
                "SSL_CERT_DIR",
                "HTTPS_PROXY",
                "https_proxy",
                "no_proxy",
                "ALL_PROXY",
                "NETRC",
                "PATH",
                "HOME",
            ),
            *("XDG_CACHE_HOME", "XDG_DATA_HOME"),
        ],
    )
    def test_what_leads_to_an_index_is_kept(self, name: str) -> None:
        assert kept_environment({name: "x"})[name] == "x"

    def test_uv_downloads_no_interpreter(self) -> None:
        assert (
            kept_environment({"UV_PYTHON_DOWNLOADS": "automatic"})["UV_PYTHON_DOWNLOADS"] == "never"
        )


class TestFailure:
    """The words are those of uv 0.13 and pip 26."""

    @pytest.mark.parametrize(
        ("output", "cause", "remedy"),
        [
            (
                "Failed to initialize cache at `/x`\n  cause: Permission denied (os error 13)",
                "uv cannot write its cache",
                "cache-dir",
            ),
            (
                (
                    "Failed to initialize cache at `/x`\n"
                    "  cause: No space left on device (os error 28)"
                ),
                "the disk is full",
                "free space",
            ),
            (
                "Failed to copy to `d/atlas.py`\n  cause: No space left on device (os error 28)",
                "the disk is full",
                "free space",
            ),
            (
                "failed to open file `/h/.cache/uv/x.lock`: Permission denied",
                "uv cannot write its cache",
                "cache-dir",
            ),
            (
                "Hash mismatch for `six==1.16.0`",
                "a downloaded file does not have the hash in the lock",
                "--wheelhouse",
            ),
            (
                "Failed to fetch: https://x\n  cause: invalid peer certificate: UnknownIssuer",
                "certificate",
                "system-certs",
            ),
            (
                "hint: due to a lack of valid authentication credentials (401 Unauthorized)",
                "requires credentials",
                "uv.toml",
            ),
            ("Failed to fetch\n  cause: dns error", "the index cannot be reached", "--wheelhouse"),
            (
                "error sending request for url\n  cause: operation timed out",
                "the index cannot be reached",
                "--wheelhouse",
            ),
            ("Because numpy==1.8.0 has no usable wheels", "no wheel for this Python", "--python"),
            ("Because there is no version of six==1.16.0", "does not have a package", "uv.toml"),
            (
                "ERROR: No matching distribution found for six==9",
                "does not have a package",
                "--wheelhouse",
            ),
        ],
    )
    def test_a_known_cause_has_a_remedy(self, output: str, cause: str, remedy: str) -> None:
        error = failure("uv pip install", output)
        assert error.what.startswith("uv pip install failed: ")
        assert cause in error.what
        assert remedy in error.remedy
        assert error.detail == output

    def test_another_one_has_the_words_alone(self) -> None:
        error = failure("uv venv", "error: something new\n")
        assert (error.what, error.remedy, error.detail) == (
            "uv venv failed",
            "",
            "error: something new",
        )

    @pytest.mark.parametrize(
        "secret", ["me:secret", "secret", "me:s@cret-secret", "__token__:secret"]
    )
    def test_no_credential_is_shown(self, secret: str) -> None:
        words = (
            f"Failed to fetch: `https://{secret}@index.example/simple/six/` "
            f"(https://{secret}@other.example)"
        )
        shown = failure("uv pip install", words).detail
        assert "secret" not in shown
        assert (
            shown == "Failed to fetch: `https://index.example/simple/six/` (https://other.example)"
        )

    def test_an_address_without_one_stays(self) -> None:
        assert redacted("https://index.example/a@b six@1") == "https://index.example/a@b six@1"
