"""One comparison from its options to its rows: what is asked, and the command that continues."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.errors import MissingFact
from optictl.host import files
from optictl.requests import smoke
from optictl.requests.compare import page, run
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
    """A comparison that runs. `config_path` is the configuration that the caller named, or None."""

    options: Options
    config: Config
    paths: Paths
    config_path: Path | None
    comparison: Comparison
    keys: Keys

    @property
    def left(self) -> int:
        """The requests to come."""
        return len(self.comparison.left)

    @property
    def outlook(self) -> str:
        """What is to come, in words."""
        samples, calls = len(self.comparison.samples_left), self.comparison.expected_calls
        of_plain = f", {samples} of them samples of plain models" if samples else ""
        requests = f"{self.left} requests to come{of_plain}, with about {calls} upstream calls"
        budget, enough = self.options.budget, self.comparison.enough
        if budget is None or budget >= enough:
            return requests
        return f"{requests}; {budget} tokens may end it earlier (estimate for all: {enough})"

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
        chosen, words = self.options, list[str]()
        if self.config_path is not None:
            words += ["--config", str(self.config_path)]
        if chosen.content:
            words += ["--content"]
        if chosen.plain_samples:
            words += ["--plain-samples"]
        if chosen.save is not None:
            words += ["--save", str(chosen.save)]
        if chosen.prices is not None:
            words += ["--price-prompt", f"{chosen.prices.prompt:g}"]
            words += ["--price-completion", f"{chosen.prices.completion:g}"]
        words += [word for model in chosen.models for word in ("--models", model)]
        return self.paths.command(self.comparison.command(budget, *words))

    def ask(self, say: Callable[[str], None]) -> bool:
        """Ask what is left. False where the budget ended it."""
        check = self.paths.command("check")
        remedy = f"{check} names what is wrong; then go on: {self.again(self.options.budget)}"
        chosen = self.options
        terms = run.Terms(chosen.timeout, chosen.budget, chosen.content, remedy)
        return run.ask(self.comparison, self.config, self.keys, terms, say)

    def rows(self) -> list[Row]:
        return self.comparison.rows(self.options.prices)

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
            priced=chosen.prices is not None,
            when=time.strftime("%Y-%m-%d %H:%M"),
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
    return Session(options, config, paths, config_path, comparison, keys)
