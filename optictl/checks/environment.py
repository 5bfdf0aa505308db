"""Configuration, environment and keys."""

from __future__ import annotations

from collections.abc import Iterator

from optictl import loading
from optictl.checks.registry import Finding, Skip, check
from optictl.checks.site import Site
from optictl.config import ConfigError
from optictl.errors import OptictlError
from optictl.guard import invariants
from optictl.host import files


@check("config.valid", "The configuration can be used", "every key known, every value allowed")
def config_valid(site: Site) -> Iterator[Finding]:
    remedy = f"edit {site.config_path}"
    try:
        loading.load(site.config_path)
    except ConfigError as invalid:
        yield Finding("; ".join(map(str, invalid.problems)), "fail", remedy)
        return
    except OptictlError as error:
        yield Finding(error.what, "fail", error.remedy)
        return
    if files.facts(site.config_path).kind == "missing":
        yield Finding(f"no {site.config_path}: the defaults are in force", "warn", site.paths.command("init"))
    else:
        yield Finding(f"{site.config_path} is valid")


@check("env.forbidden", "No variable switches OptiLLM to another provider", "none in the env file, none in the live process")
def env_forbidden(site: Site) -> Iterator[Finding]:
    looked = []
    text = files.read(site.paths.env)
    if text is not None:
        looked.append(str(site.paths.env))
        for name, effect in invariants.forbidden_variables(site.env).items():
            yield Finding(
                f"{name} in {site.paths.env}",
                "fail",
                f"remove {name} from {site.paths.env} and restart the service",
                f"it {effect}",
            )
    try:
        live = site.live.processes
    except Skip:
        live = []
    for process in live:
        if process.environ is None:
            continue
        looked.append(f"process {process.pid}")
        for name, effect in invariants.forbidden_variables(process.environ).items():
            yield Finding(
                f"{name} in the environment of process {process.pid}",
                "fail",
                f"unset {name} and restart the service",
                f"it {effect}",
            )
    if not looked:
        raise Skip("there is no env file and no live process")
    yield Finding(f"none in {', '.join(looked)}")


@check("env.upstream-key", "OptiLLM has a key for LiteLLM", "OPENAI_API_KEY is set")
def env_upstream_key(site: Site) -> Iterator[Finding]:
    path = site.paths.env
    text = files.read(path)
    if text is None:
        yield Finding(f"there is no {path}", "fail", f"{site.paths.command('init')}, then put LiteLLM's key into it")
    elif not site.env.get("OPENAI_API_KEY", "").strip():
        yield Finding(
            f"OPENAI_API_KEY is empty in {path}",
            "fail",
            f"write OPENAI_API_KEY=<a key of LiteLLM> into {path}",
            "without it OptiLLM ignores --base-url and leaves through a library of its own",
        )
    else:
        yield Finding(f"set in {path}")


@check(
    "key.strength",
    "The proxy key can protect the port",
    f"at least {invariants.MIN_KEY_LENGTH} characters, not beginning with sk-",
)
def key_strength(site: Site) -> Iterator[Finding]:
    remedy = f"rm {site.paths.proxy_key} && {site.paths.command('init')}, then give LiteLLM the new key"
    weakness = invariants.key_weakness(site.proxy_key, site.env.get("OPENAI_API_KEY", "").strip())
    if weakness:
        yield Finding(f"the key in {site.paths.proxy_key} {weakness}", "fail", remedy)
    else:
        yield Finding("strong")


@check("key.not-in-argv", "No secret stands in an argument list", "the key is passed by reference (@FILE)", live=True)
def key_not_in_argv(site: Site) -> Iterator[Finding]:
    secrets = {value for value in _secrets(site) if value}
    for process in site.live.processes:
        words = [word.partition("=")[2] or word for word in process.argv]
        flags = dict(zip(process.argv, process.argv[1:], strict=False))
        literal = flags.get("--optillm-api-key", "")
        in_flag = any(w.startswith("--optillm-api-key=") and not w.startswith("--optillm-api-key=@") for w in process.argv)
        if (literal and not literal.startswith("@")) or in_flag or secrets.intersection(words):
            yield Finding(
                f"a key stands in the argument list of process {process.pid}",
                "fail",
                site.ours,
                "every local user can read /proc/PID/cmdline",
            )
    yield Finding(f"none in process {site.live.pids}")


def _secrets(site: Site) -> Iterator[str]:
    for name in ("proxy_key", "upstream_key"):
        try:
            yield getattr(site, name)
        except (Skip, PermissionError):
            continue
