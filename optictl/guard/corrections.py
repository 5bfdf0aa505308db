"""The corrections of OptiLLM's behaviour, each one small, named and bound to versions.

The wheel stays untouched: every correction replaces one name in a loaded module. An OptiLLM
whose parts are not those that they were verified with (see `internals`) is refused, not guessed at.
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
    """`apply(server, settings, client)` mends `defect` in the OptiLLM `versions` that have it."""

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
    "every OpenAI client is built anew, and with a client's own sk- key",
    versions=("0.3.12", "0.3.13"),
)
def one_upstream_client(server: ModuleType, settings: Settings, client: Any) -> None:
    """`OpenAI(...)` in the server and in the proxy plugin yields the process's one client.

    So a bearer that begins with sk- cannot replace OPENAI_API_KEY, and the plugin's calls
    are counted and retried like all others.
    """
    import optillm.plugins.proxy.client as plugin_client

    def the_client(**_arguments: Any) -> Any:
        return client

    server.OpenAI = the_client  # type: ignore[attr-defined]
    plugin_client.OpenAI = the_client


@_correction(
    "the client is chosen by the environment at every request", versions=("0.3.12", "0.3.13")
)
def bound_client(server: ModuleType, settings: Settings, client: Any) -> None:
    """`get_config` hands a strategy the client that counts for its request.

    With `--approach proxy` that client is the proxy plugin's, without the fallback client
    which would hide a failing provider.
    """
    if settings.approach == "proxy":
        from optillm.plugins.proxy.client import ProxyClient
        from optillm.plugins.proxy.config import ProxyConfig

        config = ProxyConfig.load()
        # a file that it cannot use gives OptiLLM an empty list of providers, not an error
        if [str(p["base_url"]).rstrip("/") for p in config["providers"]] != [
            settings.base_url.rstrip("/")
        ]:
            raise Refusal(
                "proxy_config.yaml was read by OptiLLM as naming no provider: it is valid YAML, but a value has a wrong type"
            )
        # whatever the file leaves out: one upstream cannot be failed over from, and the guard bounds the time
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
    "with --approach proxy only the proxy runs, never the prefix strategy",
    versions=("0.3.12", "0.3.13"),
)
def run_the_strategy(server: ModuleType, settings: Settings, client: Any) -> None:
    """The strategy that the door let in is the one that runs, on the base model it named.

    OptiLLM turns `moa-jerry-xl` into `proxy-moa-jerry-xl`, reads ['proxy', 'moa'] and runs
    the first. Here the proxy is the client (see `bound_client`), so it leaves the list.
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
            # the door checked the name already; this is the second lock
            raise ledger.Abort(
                400, "strategy_not_enabled", "OptiLLM understood the model name differently"
            )
        return operation, approaches, base_model

    server.parse_combined_approach = parse_combined_approach  # type: ignore[attr-defined]


@_correction(
    "the proxy plugin first asks every model a hidden question, whatever the request",
    versions=("0.3.12", "0.3.13"),
)
def no_probe(server: ModuleType, settings: Settings, client: Any) -> None:
    """The plugin takes it that a model knows system messages, as it does after most errors too.

    Its probe costs a call, is the same for every request, so that the breaker cannot tell
    them apart, and any error that says "not supported" moves system messages into the
    user's for good. A model without them is LiteLLM's business (`supports_system_message`).
    """
    from optillm.plugins.proxy.client import ProxyClient

    def supported(_completions: Any, _provider: Any, _model: str) -> bool:
        return True

    ProxyClient._Completions._test_system_message_support = supported


@_correction(
    "an answer that says User: or Assistant: somewhere is cut down to what follows the last",
    versions=("0.3.12", "0.3.13"),
)
def whole_answer(server: ModuleType, settings: Settings, client: Any) -> None:
    """A strategy's answer reaches the client as it is.

    OptiLLM takes any text with one of the two words in it for a dialogue of its own making.
    """

    def tagged_conversation_to_messages(response_text: Any) -> Any:
        return response_text

    server.tagged_conversation_to_messages = tagged_conversation_to_messages  # type: ignore[attr-defined]


#: The OptiLLM versions that have the defect which `readable_arguments` corrects.
UNREADABLE_ARGUMENTS = ("0.3.12", "0.3.13")


def readable_arguments(server: ModuleType) -> None:
    """OptiLLM's `main()` can read its arguments on Python 3.14. To be called before it.

    `parse_args` makes an argument of every field of CePO's configuration and passes the field's annotation as
    its type. One is `Optional[str]`, which is a union in 3.14, and argparse refuses what cannot be called. A field
    is read here as text in that case. The version is not looked at: other fields stay as they are.
    """

    def fields(configuration: Any) -> list[Any]:
        return [
            SimpleNamespace(name=field.name, type=field.type if callable(field.type) else str)
            for field in dataclasses.fields(configuration)
        ]

    server.fields = fields  # type: ignore[attr-defined]


def apply(server: ModuleType, settings: Settings, client: Any, version: str) -> None:
    """Apply every correction, or raise Refusal for an OptiLLM whose internals nobody has verified."""
    changed = internals.unknown(internals.fingerprints(Path(str(server.__file__)).parent.parent))
    if changed:
        raise Refusal(
            f"OptiLLM {version} is not one that the guard knows: {', '.join(changed)} differ from what was verified"
        )
    stated = {
        readable_arguments.__name__: UNREADABLE_ARGUMENTS,
        **{c.name: c.versions for c in CORRECTIONS},
    }
    if unstated := [name for name, versions in stated.items() if version not in versions]:
        # its parts are the verified ones, under a version that nobody has run the tests with
        journal.write("unverified", optillm=version, corrections=unstated)
    for correction in CORRECTIONS:
        correction.apply(server, settings, client)
