"""`optictl compare`: selects models and questions, and sends the requests that are left."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from optictl.deployment import model_names
from optictl.deployment.config import Config, suggest
from optictl.errors import (
    BudgetTooSmall,
    FileFailure,
    InvalidFile,
    Locked,
    RequestsFailed,
    UnknownModel,
    of_os,
    os_words,
)
from optictl.guard.error_texts import is_error_text
from optictl.host import files, network
from optictl.host.network import Response
from optictl.proof import evidence
from optictl.requests.compare import questions as asking
from optictl.requests.compare import summary
from optictl.requests.compare.questions import Question, QuestionsError
from optictl.requests.compare.summary import Header, Record, RecordsError, Subject
from optictl.requests.smoke import Keys, patience

#: After this many consecutive failures of one model, that model is asked no more; after this many
#: of all models, the comparison stops.
FAILURES_IN_A_ROW = 3
#: Characters of an error message that are kept.
_ERROR_LENGTH = 200
BUILT_IN = Path(__file__).with_name("questions.jsonl")


@dataclass
class Comparison:
    """A comparison and its results so far. Every answer is added to `records` and to `file`."""

    header: Header
    subjects: list[Subject]
    questions: list[Question]
    file: Path
    records: list[Record] = field(default_factory=list)

    @property
    def left(self) -> list[tuple[Subject, Question]]:
        return summary.left(self.subjects, self.questions, self.records)

    @property
    def tokens(self) -> int:
        return sum(r.tokens for r in self.records)

    @property
    def enough(self) -> int:
        """The estimated tokens of the whole comparison."""
        return self.tokens + sum(self._expected(subject, q) for subject, q in self.left)

    def _expected(self, subject: Subject, question: Question) -> int:
        return summary.expected_tokens(subject, question, self.subjects, self.records)

    def fits(self, subject: Subject, question: Question, budget: int | None) -> bool:
        """Whether a request is expected to stay within the token budget."""
        return budget is None or self.tokens + self._expected(subject, question) <= budget

    def rows(self, prices: summary.Prices | None) -> list[summary.Row]:
        return summary.rows(self.subjects, self.questions, self.records, prices)

    def command(self, budget: int | None, *flags: str) -> str:
        """The arguments of `optictl` that resume this comparison; `flags` are added."""
        limit = [f"--budget-tokens {budget}"] if budget else []
        return " ".join(
            ["compare --resume", shlex.quote(str(self.file)), *limit, *map(shlex.quote, flags)]
        )


def subjects(config: Config, asked: list[str]) -> list[Subject]:
    """The named models or every enabled strategy, each group after its base model.

    Raises:
        UnknownModel: the deployment does not serve one of them.
    """
    by_base_model: dict[str, list[Subject]] = {}
    for name in asked or [*config.base_models, *config.published]:
        target = config.publish.get(name, name)
        strategy, base_model = model_names.split(target, config.strategies, config.base_models) or (
            "",
            target,
        )
        if base_model not in config.base_models:
            known = [*config.published, *config.base_models]
            raise UnknownModel(
                f"{name} is not an enabled strategy on a base model{suggest(name, known)}",
                remedy=f"one of these: {', '.join(known)}",
            )
        of_base = by_base_model.setdefault(base_model, [Subject(base_model, "", base_model)])
        if (subject := Subject(target, strategy, base_model)) not in of_base:
            of_base.append(subject)
    return [subject for of_base in by_base_model.values() for subject in of_base]


def begin(
    config: Config, asked: list[str], prompts: Path | None, resume: Path | None
) -> Comparison:
    """A new comparison, or the one in the file `resume`, with its models and questions by default.

    Raises:
        UnknownModel: the deployment does not serve a model.
        OptictlError: a file cannot be used.
    """
    kept = _kept(resume) if resume else None
    if kept is not None:
        asked = asked or list(kept[0].models)
        prompts = prompts or (Path(kept[0].prompts) if kept[0].prompts else None)
    compared = subjects(config, asked)
    questions = _questions(prompts)
    header = Header(
        asking.digest(questions),
        str(prompts) if prompts else None,
        tuple(s.model for s in compared),
    )
    if kept is not None and resume is not None and kept[0].questions != header.questions:
        raise InvalidFile(
            f"{resume} has other questions than {prompts or 'this version of optictl'}",
            remedy="start a new comparison, without --resume",
        )
    file = resume or Path(f"optictl-compare-{time.strftime('%Y%m%d-%H%M%S')}.jsonl").absolute()
    return Comparison(header, compared, questions, file, kept[1] if kept else [])


def _kept(path: Path) -> tuple[Header, list[Record]] | None:
    text = files.read(path)
    if not text:
        return None
    try:
        return summary.read(text)
    except RecordsError as error:
        raise InvalidFile(
            f"{path} cannot be resumed: {error}", remedy="name another file"
        ) from None


def _questions(path: Path | None) -> list[Question]:
    text = files.read(path or BUILT_IN)
    if text is None:
        raise FileFailure(f"{path} does not exist", remedy="name a questions file with --prompts")
    try:
        return asking.parse(text)
    except QuestionsError as invalid:
        raise InvalidFile(
            f"{path} cannot be used: {len(invalid.problems)} problem(s)",
            remedy="write lines such as "
            '{"prompt": "What is 6 times 7?", "expected": {"number": 42}}',
            detail="\n".join(map(str, invalid.problems)),
            problems=[vars(problem) for problem in invalid.problems],
        ) from None


def record(subject: Subject, question: Question, answer: Response, keep: bool) -> Record:
    """The record of an answer. Pure. `keep`: whether it includes the answer's text."""
    text, tokens = evidence.content(answer), evidence.usage(answer)
    ran = evidence.header(answer, "strategy")
    error = ""
    if answer.status != 200:
        error = evidence.error_message(answer)[:_ERROR_LENGTH]
    elif subject.strategy and ran != subject.strategy:
        error = (
            f"{ran} ran"
            if ran
            else "no proof that the strategy ran: OptiLLM runs without the guard"
        )
    elif is_error_text(text):
        error = "the answer is an error text of OptiLLM"
    return Record(
        question=question.id,
        model=subject.model,
        right=not error and asking.right(question, text),
        error=error,
        seconds=round(answer.seconds, 3),
        calls=evidence.number(answer, "upstream-calls")
        if subject.strategy
        else int(answer.status != 0),
        # for a failed request, the guard reports the sum only
        prompt_tokens=tokens["prompt"]
        or (0 if tokens["total"] else evidence.number(answer, "tokens")),
        completion_tokens=tokens["completion"],
        answer=text if keep and not error else None,
    )


@dataclass(frozen=True)
class Terms:
    """How the questions of a comparison are asked.

    `timeout`: seconds per request; None: as the deployment's own. `budget`: tokens in total,
    earlier runs included. `keep`: keep the texts of the answers. `remedy`: what to do if nothing
    answers.
    """

    timeout: float | None
    budget: int | None
    keep: bool
    remedy: str


def ask(
    comparison: Comparison, config: Config, keys: Keys, terms: Terms, say: Callable[[str], None]
) -> bool:
    """Send the requests that are left; False if the budget stopped the comparison.

    Each answer is on disk before the next request. `say` receives a progress line for each finished
    request.

    Raises:
        OptictlError: too many consecutive requests failed, the budget is too small for one request,
            or the file cannot be written.
        Locked: another optictl writes the file.
    """
    if not comparison.records and not comparison.fits(*comparison.left[0], terms.budget):
        raise BudgetTooSmall(
            f"--budget-tokens {terms.budget} may be too small for the first question",
            remedy=f"use --budget-tokens {comparison.enough} (estimate for the whole comparison)",
        )
    try:
        with files.appending(comparison.file) as append:
            if not comparison.records and not files.read(comparison.file):
                append(comparison.header.line())
            return _ask(comparison, config, keys, terms, append, say)
    except Locked as holder:
        raise Locked(
            str(holder), remedy="wait for it, or name another file with --resume"
        ) from None
    except OSError as error:
        raise of_os(error).reworded(
            f"cannot write the answers: {os_words(error)}", "name another file with --resume"
        ) from None


def _ask(
    comparison: Comparison,
    config: Config,
    keys: Keys,
    terms: Terms,
    append: Callable[[str], None],
    say: Callable[[str], None],
) -> bool:
    timeout = terms.timeout or patience(config)
    failures, of_model = 0, Counter[str]()
    for subject, question in comparison.left:
        if of_model[subject.model] == FAILURES_IN_A_ROW:
            continue
        if not comparison.fits(subject, question, terms.budget):
            return False
        url, key = (
            (config.url, keys.proxy)
            if subject.strategy
            else (config.upstream.base_url, keys.upstream)
        )
        body = {"model": subject.model, "messages": list(question.messages)}
        answer = network.request(
            "POST", f"{url}/chat/completions", key=key, body=body, timeout=timeout
        )
        answered = record(subject, question, answer, terms.keep)
        append(answered.line())
        comparison.records.append(answered)
        failures = failures + 1 if answered.error else 0
        of_model[subject.model] = of_model[subject.model] + 1 if answered.error else 0
        say(f"{subject.model}: {answered.error or ('right' if answered.right else 'wrong')}")
        if failures == FAILURES_IN_A_ROW:
            raise RequestsFailed(
                f"{failures} consecutive requests failed",
                remedy=terms.remedy,
                detail=f"{subject.model}: {answered.error}",
            )
    return True
