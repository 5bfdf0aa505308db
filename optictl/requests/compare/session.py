"""One comparison from its options to its rows: what is asked, and the command that continues."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from optictl import __version__
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.errors import MissingFact
from optictl.host import files
from optictl.requests import smoke, tracing
from optictl.requests.compare import page, prices, run
from optictl.requests.compare.run import Comparison
from optictl.requests.compare.summary import Prices, Row
from optictl.requests.smoke import Keys


@dataclass(frozen=True)
class Options:
    """What the caller chose. Paths are absolute; `budget` is in tokens, `timeout` in seconds."""

    models: list[str]
    prompts: Path | None = None
    budget: int | None = None
    prices: Prices | None = None
    save: Path | None = None
    resume: Path | None = None
    content: bool = False
    timeout: float | None = None
    plain_samples: bool = False


@dataclass
class Session:
    """A comparison that runs. `config_path` is the configuration that the caller named, or None.

    `prices`: base model -> its prices, those that the caller stated or LiteLLM's.
    """

    options: Options
    config: Config
    paths: Paths
    config_path: Path | None
    comparison: Comparison
    keys: Keys
    prices: Mapping[str, Prices] = field(default_factory=dict)

    @property
    def left(self) -> int:
        """The requests to come."""
        return len(self.comparison.left)

    @property
    def outlook(self) -> str:
        """What is to come, in words."""
        samples, calls = len(self.comparison.samples_left), self.comparison.expected_calls
        of_plain = f", {samples} of them samples of plain models" if samples else ""
        tokens = self.comparison.enough - self.comparison.tokens
        requests = (
            f"{self.left} requests to come{of_plain}, with about {calls} upstream calls"
            f" and {tokens} tokens, {self._cost}"
        )
        budget, enough = self.options.budget, self.comparison.enough
        if budget is None or budget >= enough:
            return requests
        return f"{requests}; {budget} tokens may end it earlier (estimate for all: {enough})"

    @property
    def _cost(self) -> str:
        """What the requests to come will cost, in words."""
        cost = self.comparison.expected_cost(self.prices)
        if cost is None:
            return "at an unknown price"
        source = "the stated prices" if self.options.prices else "LiteLLM's prices"
        return f"for about {cost:.2g} ({source})"

    @property
    def may_ask(self) -> bool:
        """Whether a request is left that is expected to stay within the budget."""
        left = self.comparison.left
        return bool(left) and self.comparison.fits(left[0], self.options.budget)

    @property
    def tokens(self) -> int:
        """The tokens of all that is compared, samples and repeated requests included."""
        models = {s.model for s in self.comparison.subjects}
        return sum(r.tokens for r in self.comparison.records if r.model in models)

    def again(self, budget: int | None) -> str:
        """The command that continues, with a budget of tokens."""
        words = self._words()
        if self.options.save is not None:
            words += ["--save", str(self.options.save)]
        return self.paths.command(self.comparison.command(budget, *words))

    @property
    def repeat(self) -> str:
        """The command that makes the same comparison again."""
        words, prompts = self._words(), self.comparison.header.prompts
        if prompts:
            words += ["--prompts", prompts]
        if not self.options.models:
            strategies = (s.model for s in self.comparison.subjects if s.strategy)
            words += [word for model in strategies for word in ("--models", model)]
        return self.paths.command(" ".join(["compare", *map(shlex.quote, words)]))

    def _words(self) -> list[str]:
        """The options of the caller."""
        chosen, words = self.options, list[str]()
        if self.config_path is not None:
            words += ["--config", str(self.config_path)]
        if chosen.content:
            words += ["--content"]
        if chosen.plain_samples:
            words += ["--plain-samples"]
        if chosen.prices is not None:
            words += ["--price-prompt", f"{chosen.prices.prompt:g}"]
            words += ["--price-completion", f"{chosen.prices.completion:g}"]
        return words + [word for model in chosen.models for word in ("--models", model)]

    def ask(self, say: Callable[[str], None]) -> bool:
        """Ask what is left. False where the budget ended it."""
        check = self.paths.command("check")
        remedy = f"{check} names what is wrong; then go on: {self.again(self.options.budget)}"
        chosen = self.options
        terms = run.Terms(chosen.timeout, chosen.budget, chosen.content, remedy)
        return run.ask(self.comparison, self.config, self.keys, terms, say)

    def rows(self) -> list[Row]:
        return self.comparison.rows(self.prices)

    @property
    def origin(self) -> page.Origin:
        """What is needed to repeat the comparison."""
        header = self.comparison.header
        models = [subject.model for subject in self.comparison.subjects]
        serving = tracing.versions(self.config, self.keys.proxy)
        built_in = f"the built-in ones of optictl {__version__}"
        facts = {
            "models": ", ".join(models),
            "questions": f"{header.prompts or built_in} ({header.questions})",
            "versions": ", ".join(f"{name} {version}" for name, version in serving),
            "prices": "; ".join(f"{model}: {of}" for model, of in self.prices.items()),
            "results file": str(self.comparison.file),
        }
        known = tuple((name, text) for name, text in facts.items() if text)
        return page.Origin(self.repeat, known, header.line())

    def save(self) -> None:
        """Write the HTML page, where one is wanted.

        With answers in it, it is for the caller alone.
        """
        chosen = self.options
        if chosen.save is None:
            return
        text = page.render_page(
            self.rows(),
            self.comparison.questions,
            self.comparison.records,
            content=chosen.content,
            priced=any(row.cost is not None for row in self.rows()),
            when=time.strftime("%Y-%m-%d %H:%M"),
            origin=self.origin,
        )
        files.write(chosen.save, text, 0o600 if chosen.content else 0o644)


def begin(options: Options, config: Config, paths: Paths, config_path: Path | None) -> Session:
    """Choose models and questions, and read the keys. Nothing is asked yet.

    Raises:
        UnknownModel: a model is not served.
        BudgetTooSmall: the budget does not fit one request.
        OptictlError: a file cannot be used, or LiteLLM's key cannot be read.
    """
    comparison = run.begin(
        config, options.models, options.prompts, options.resume, options.plain_samples
    )
    keys = smoke.keys(paths, None)
    if not keys.upstream:
        raise MissingFact(
            f"LiteLLM's key cannot be read in {paths.env}",
            remedy="run it with sudo, or set OPENAI_API_KEY there",
        )
    comparison.refuse_small(options.budget)
    base_models = {subject.base_model for subject in comparison.subjects}
    known = (
        dict.fromkeys(base_models, options.prices)
        if options.prices
        else prices.ask(config.upstream.base_url, keys.upstream, base_models)
    )
    return Session(options, config, paths, config_path, comparison, keys, known)
