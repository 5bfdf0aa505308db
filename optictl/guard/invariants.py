"""The conditions for a start of OptiLLM. Pure: facts in, reasons against a start out.

`optictl check` and `optictl run` use the same functions, and always agree with the service.
`docs/explanation/why.md` has the fact about OptiLLM behind each rule.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from .envfile import EnvFile

#: variable -> its effect on OptiLLM 0.3.12, as a sentence about "it"
FORBIDDEN = {
    "OPTILLM_API_KEY": "switches OptiLLM to local inference",
    "CEREBRAS_API_KEY": "overrides OPENAI_API_KEY and sends prompts to another provider",
    "AZURE_OPENAI_API_KEY": "lets OptiLLM send prompts to Azure",
    "OPENAI_BASE_URL": "redirects upstream calls",
    "OPENAI_LOG": "makes the OpenAI client log prompts",
    "HTTP_PROXY": "sends loopback calls and their key through a proxy",
    "HTTPS_PROXY": "sends loopback calls and their key through a proxy",
    "ALL_PROXY": "sends loopback calls and their key through a proxy",
}
_OPTILLM_DEFAULT = "changes one of OptiLLM's defaults"

#: Words of OptiLLM that are not strategies -> the reason.
NOT_OFFERED = {
    "proxy": "is the upstream client",
    "compact": "makes no upstream call and answers with the question",
}

#: Threads of a running request, those of its strategy included. It sizes TasksMax= of the unit.
REQUEST_THREADS = 8
MIN_KEY_LENGTH = 24
MIN_KEY_VARIETY = 8


def forbidden_variables(environ: Iterable[str]) -> dict[str, str]:
    """The forbidden variables in `environ`: name -> effect. Values are not read."""
    found: dict[str, str] = {}
    for name in environ:
        upper = name.upper()
        if upper in FORBIDDEN and (name == upper or upper.endswith("_PROXY")):
            found[name] = FORBIDDEN[upper]
        elif name.startswith("OPTILLM_"):
            found[name] = _OPTILLM_DEFAULT
    return found


def key_weakness(key: str, upstream_key: str = "") -> str | None:
    """The reason why the proxy key is not allowed, or None. It never contains the key."""
    if not key:
        return "is empty"
    if key.startswith("sk-"):
        return "begins with sk-: OptiLLM would send it upstream instead of OPENAI_API_KEY"
    if not key.isascii() or not key.isprintable() or " " in key:
        return "contains white space or characters that are not allowed in a header"
    if len(key) < MIN_KEY_LENGTH:
        return f"is shorter than {MIN_KEY_LENGTH} characters"
    if len(set(key)) < MIN_KEY_VARIETY:
        return f"has fewer than {MIN_KEY_VARIETY} different characters"
    if key == upstream_key:
        return "is the same as OPENAI_API_KEY"
    return None


def is_loopback(host: str | None) -> bool:
    """Whether a host name or address always means this machine."""
    if not host:
        return False
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def upstream_problem(base_url: str) -> str | None:
    """The reason why this URL is not allowed as the upstream, or None."""
    try:
        parts = urlsplit(base_url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in ("http", "https"):
        return "is not an http URL"
    if not is_loopback(host):
        return "does not point at this machine"
    if parts.username or parts.password:
        return "contains a user name or password"
    if parts.path.rstrip("/") != "/v1" or parts.query or parts.fragment:
        return "must end in /v1"
    if f"{parts.scheme}://{parts.netloc}{parts.path}" != base_url:
        # urlsplit drops white space, and an empty ? or #
        return "contains characters that are not allowed in a URL"
    return None


def same_endpoint(left: str, right: str) -> bool:
    """Whether two base URLs are equal, apart from a slash at the end."""
    return left.rstrip("/") == right.rstrip("/")


def proxy_config_problems(text: str | None, base_url: str) -> list[str]:
    """The problems of a proxy_config.yaml. `text`: its text, or None when the file is missing.

    Without the file, OptiLLM 0.3.12 uses its packaged example with public providers. With a file
    that it cannot parse, it has no provider. Both answer 200.
    """
    import yaml  # optictl's fast commands use this module without YAML

    if text is None:
        return ["is missing: OptiLLM would use its packaged example with public providers"]
    try:
        data: Any = yaml.safe_load(text)
    except (
        yaml.YAMLError,
        ValueError,
        RecursionError,
    ) as error:  # ValueError: a date such as 2026-13-45
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        return [f"is not valid YAML{where}"]
    if not isinstance(data, dict):
        return ["is not a mapping"]
    providers = data.get("providers")
    if not isinstance(providers, list) or not providers:
        return ["has no provider"]
    problems = []
    for index, provider in enumerate(providers):
        if not isinstance(provider, dict):
            problems.append(f"provider {index + 1} is not a mapping")
            continue
        name = provider.get("name", index + 1)
        url = provider.get("base_url")
        if not isinstance(url, str) or not same_endpoint(url, base_url):
            problems.append(f"provider {name} is not the upstream {base_url}")
        if provider.get("api_key") != "${OPENAI_API_KEY}":
            problems.append(f"provider {name} does not take its key from ${{OPENAI_API_KEY}}")
        if provider.get("model_map"):
            problems.append(f"provider {name} renames models")
    if len(providers) > 1:
        problems.append(f"has {len(providers)} providers; only LiteLLM is allowed")
    return problems


def refusals(
    *,
    host: str,
    base_url: str,
    approach: str,
    proxy_key: str,
    environ: Mapping[str, str],
    uid: int,
    proxy_config: str | None,
    env_file: EnvFile | None = None,
) -> list[str]:
    """Every reason against a start. Empty: the service may start.

    `env_file`: the file with OPENAI_API_KEY, or None when the environment has it.
    """
    reasons = []
    if uid == 0:
        reasons.append("runs as root")
    reasons += [f"the env file, {problem}" for problem in (env_file.problems if env_file else ())]
    reasons += [
        f"{name} is set: it {effect}"
        for name, effect in sorted(forbidden_variables(environ).items())
    ]
    upstream_key = environ.get("OPENAI_API_KEY", "").strip()
    # a line that systemd ignores already has its problem above
    if not upstream_key and not (env_file and env_file.loses("OPENAI_API_KEY")):
        reasons.append("OPENAI_API_KEY is missing: OptiLLM would ignore --base-url")
    if host != "127.0.0.1":
        reasons.append(f"--host {host} is not 127.0.0.1")
    if problem := upstream_problem(base_url):
        reasons.append(f"--base-url {problem}")
    if weakness := key_weakness(proxy_key, upstream_key):
        reasons.append(f"the proxy key {weakness}")
    if approach == "proxy":
        reasons += [
            f"proxy_config.yaml {problem}"
            for problem in proxy_config_problems(proxy_config, base_url)
        ]
    return reasons
