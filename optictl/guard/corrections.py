"""Patches for defects in OptiLLM. Each is small and names its defect and the affected versions.

The wheel is not changed: a patch replaces a name in a loaded module. The guard refuses an OptiLLM
with unknown fingerprints (see `internals`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from . import internals, journal, ledger
from .settings import Refusal, Settings
from .upstream import BoundClient


@dataclass(frozen=True)
class Correction:
    """A patch: `apply(server, settings, client)` fixes `defect` in these `versions` of OptiLLM."""

    name: str
    defect: str
    versions: tuple[str, ...]
    apply: Callable[[ModuleType, Settings, Any], None]


CORRECTIONS: list[Correction] = []


def _correction(defect: str, versions: tuple[str, ...]) -> Callable[..., Any]:
    def register(function: Callable[[ModuleType, Settings, Any], None]) -> Any:
        CORRECTIONS.append(Correction(function.__name__, defect, versions, function))
        return function

    return register


@_correction(
    "every request builds a new OpenAI client, with the client's key if it begins with sk-",
    versions=("0.3.12", "0.3.13"),
)
def one_upstream_client(server: ModuleType, settings: Settings, client: Any) -> None:
    """`OpenAI(...)` in the server and in the proxy plugin returns the one client of the process.

    A client's key that begins with sk- cannot replace OPENAI_API_KEY. The plugin's calls are
    counted and retried like all others.
    """
    import optillm.plugins.proxy.client as plugin_client

    def the_client(**_arguments: Any) -> Any:
        return client

    server.OpenAI = the_client  # type: ignore[attr-defined]
    plugin_client.OpenAI = the_client


@_correction(
    "the environment selects the upstream client at every request", versions=("0.3.12", "0.3.13")
)
def bound_client(server: ModuleType, settings: Settings, client: Any) -> None:
    """`get_config` returns a client that records the calls for the current request.

    With `--approach proxy` it is the proxy plugin's client, without a fallback client: that would
    hide a failing provider.
    """
    if settings.approach == "proxy":
        from optillm.plugins.proxy.client import ProxyClient
        from optillm.plugins.proxy.config import ProxyConfig

        config = ProxyConfig.load()
        # for an unusable file, OptiLLM has an empty list of providers instead of an error
        if [str(p["base_url"]).rstrip("/") for p in config["providers"]] != [
            settings.base_url.rstrip("/")
        ]:
            raise Refusal(
                "OptiLLM reads no provider from proxy_config.yaml: "
                "it is valid YAML, but a value has a wrong type"
            )
        # set these even if the file omits them: there is only one upstream, and the guard limits
        # time
        config["monitoring"]["track_errors"] = False
        config["routing"]["health_check"]["enabled"] = False
        config["timeouts"]["request"] = settings.request_timeout
        inner: Any = ProxyClient(config=config, fallback_client=None)
    else:
        inner = client

    def get_config() -> tuple[Any, None]:
        request = ledger.current.get()
        return (client if request is None else BoundClient(inner, request)), None

    server.get_config = get_config  # type: ignore[attr-defined]


@_correction(
    "with --approach proxy only the proxy plugin runs, not the strategy of the prefix",
    versions=("0.3.12", "0.3.13"),
)
def run_the_strategy(server: ModuleType, settings: Settings, client: Any) -> None:
    """The strategy of the request runs, on its base model.

    OptiLLM turns `moa-jerry-xl` into `proxy-moa-jerry-xl`, reads ['proxy', 'moa'] and runs only the
    first. Here the proxy plugin is the client (see `bound_client`), and is removed from the list.
    """
    parse = server.parse_combined_approach

    def parse_combined_approach(
        model: str, known: list[str], plugins: dict[str, Any]
    ) -> tuple[str, list[str], str]:
        operation, approaches, base_model = parse(model, known, plugins)
        if approaches[0] == "proxy" and len(approaches) > 1:
            approaches = approaches[1:]
        request = ledger.current.get()
        if request is None or (operation, approaches, base_model) != (
            "SINGLE",
            [request.strategy],
            request.base_model,
        ):
            # the application has checked the name already; this is a second check
            raise ledger.Abort(
                400, "strategy_not_enabled", "OptiLLM reads this model name differently"
            )
        return operation, approaches, base_model

    server.parse_combined_approach = parse_combined_approach  # type: ignore[attr-defined]


@_correction(
    "the proxy plugin sends a hidden probe to every model before its first request",
    versions=("0.3.12", "0.3.13"),
)
def no_probe(server: ModuleType, settings: Settings, client: Any) -> None:
    """The plugin assumes that a model supports system messages. It sends no probe.

    A probe costs a call. All probes are equal, and the loop detection cannot distinguish them.
    After
    an error with "not supported", the plugin would always move system messages into user messages.
    LiteLLM handles models without system messages (`supports_system_message`).
    """
    from optillm.plugins.proxy.client import ProxyClient

    def supported(_completions: Any, _provider: Any, _model: str) -> bool:
        return True

    ProxyClient._Completions._test_system_message_support = supported


@_correction(
    "an answer with the text User: or Assistant: loses everything before the last of them",
    versions=("0.3.12", "0.3.13"),
)
def whole_answer(server: ModuleType, settings: Settings, client: Any) -> None:
    """The client gets a strategy's answer unchanged.

    OptiLLM treats any text with one of these words as a dialogue that it wrote itself.
    """

    def tagged_conversation_to_messages(response_text: Any) -> Any:
        return response_text

    server.tagged_conversation_to_messages = tagged_conversation_to_messages  # type: ignore[attr-defined]


#: The OptiLLM versions that have the defect which `readable_arguments` corrects.
UNREADABLE_ARGUMENTS = ("0.3.12", "0.3.13")


def readable_arguments(server: ModuleType) -> None:
    """Let OptiLLM's `main()` parse its arguments on Python 3.14. Call this first.

    `parse_args` creates an argument for every field of CePO's configuration, with the annotation of
    the field as its type. One annotation is `Optional[str]`. In 3.14 that is a union, which is not
    callable, and argparse refuses it. This patch reads such a field as text, and does not change
    other fields or depend on the Python version.
    """

    def fields(configuration: Any) -> list[Any]:
        return [
            SimpleNamespace(name=field.name, type=field.type if callable(field.type) else str)
            for field in dataclasses.fields(configuration)
        ]

    server.fields = fields  # type: ignore[attr-defined]


def apply(server: ModuleType, settings: Settings, client: Any, version: str) -> None:
    """Apply every patch.

    Raises:
        Refusal: OptiLLM has fingerprints that no tested version has.
    """
    changed = internals.unknown(internals.fingerprints(Path(str(server.__file__)).parent.parent))
    if changed:
        raise Refusal(
            f"the guard does not know this OptiLLM {version}: "
            f"these parts differ from every tested version: {', '.join(changed)}"
        )
    stated = {
        readable_arguments.__name__: UNREADABLE_ARGUMENTS,
        **{c.name: c.versions for c in CORRECTIONS},
    }
    if unstated := [name for name, versions in stated.items() if version not in versions]:
        # the fingerprints are known, but the tests have not run with this version
        journal.write("unverified", optillm=version, corrections=unstated)
    for correction in CORRECTIONS:
        correction.apply(server, settings, client)
