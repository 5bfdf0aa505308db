"""Find OptiLLM in a command line, through wrappers: shells, env, uv, Python, scripts. Pure.

`UNKNOWN` replaces text that only a running shell knows: the output of a program.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from optictl.guard import envfile

#: A character for text that is not known without running a program.
UNKNOWN = "\ufffc"
#: Returns the text of a file, or None when it is missing or not readable.
Reader = Callable[[str], "str | None"]
#: More wrappers than this are a loop.
_DEPTH = 12
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.S)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Started:
    """The program that a command line starts. Words and variables may contain secrets.

    `words`: the program and its arguments. `is_optillm`: it is OptiLLM, and `arguments` are its
    arguments. `wrappers`: the wrappers before it, as text.
    """

    words: tuple[str, ...] = field(repr=False)
    arguments: tuple[str, ...] = field(default=(), repr=False)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    directory: str = ""
    wrappers: tuple[str, ...] = ()
    is_optillm: bool = False
    #: where each variable that a wrapper sets comes from
    places: Mapping[str, str] = field(default_factory=dict)


def started(
    words: Sequence[str], environment: Mapping[str, str], directory: str, read: Reader
) -> Started:
    """Follow a command line through its wrappers, to OptiLLM if possible."""
    return _follow(Started(tuple(words), environment=dict(environment), directory=directory), read)


def _follow(now: Started, read: Reader) -> Started:
    while now.words and not now.is_optillm and len(now.wrappers) < _DEPTH:
        further = _unwrapped(now, read)
        if further is None:
            break
        now = further
    return now


def _name(word: str) -> str:
    return PurePosixPath(word).name.removesuffix(".exe")


def _unwrapped(now: Started, read: Reader) -> Started | None:
    """Remove one wrapper. None when the program is not a known wrapper."""
    first, rest = _name(now.words[0]), list(now.words[1:])
    if first == "optillm":
        return replace(now, arguments=tuple(rest), is_optillm=True)
    if re.fullmatch(r"(python|pypy)[0-9.]*", first):
        return _python(now, rest)
    if first in _SHELLS:
        return _shell(now, rest, read)
    if first == "env":
        return _env(now, rest)
    if first in ("uv", "uvx"):
        return _uv(now, rest if first == "uv" else ["tool", "run", *rest], read)
    if first in _PLAIN:
        flags, operands = _PLAIN[first]
        return _without(now, rest, flags, operands)
    return _script(now, read)


def _inside(now: Started, words: Sequence[str], wrapper: str, **more: object) -> Started | None:
    if not words:
        return None
    wrappers = (*now.wrappers, wrapper)
    return replace(now, words=tuple(words), wrappers=wrappers, **more)  # type: ignore[arg-type]


#: Programs that start another one -> (their options with a value, operands before that program).
_PLAIN: dict[str, tuple[frozenset[str], int]] = {
    "exec": (frozenset({"-a"}), 0),
    "command": (frozenset(), 0),
    "nohup": (frozenset(), 0),
    "setsid": (frozenset(), 0),
    "time": (frozenset({"-f", "-o"}), 0),
    "nice": (frozenset({"-n"}), 0),
    "ionice": (frozenset({"-c", "-n"}), 0),
    "stdbuf": (frozenset({"-i", "-o", "-e"}), 0),
    "chrt": (frozenset(), 1),
    "taskset": (frozenset(), 1),
    "timeout": (frozenset({"-k", "-s"}), 1),
    "flock": (frozenset({"-w", "-E"}), 1),
    "sudo": (frozenset({"-u", "-g", "-h", "-p", "-C", "-D", "-R", "-T"}), 0),
    "runuser": (frozenset({"-u", "-g", "-G"}), 0),
    "setpriv": (frozenset(), 0),
    "systemd-cat": (frozenset({"-t", "-p"}), 0),
    "gosu": (frozenset(), 1),
    "dotenv": (frozenset({"-f", "-q"}), 0),
    "tini": (frozenset({"-p", "-e"}), 0),
}


def _without(now: Started, rest: list[str], flags: frozenset[str], operands: int) -> Started | None:
    at = _options_end(rest, flags)
    wrapper = _name(now.words[0])
    remaining = rest[at + operands :]
    if wrapper == "dotenv" and remaining[:1] == ["run"]:
        remaining = remaining[1:]
    remaining = remaining[1:] if remaining[:1] == ["--"] else remaining
    return _inside(now, remaining, wrapper)


def _options_end(words: Sequence[str], with_value: frozenset[str]) -> int:
    """The number of words that are options of a wrapper, including values and `--`."""
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] != "-":
        if words[at] == "--":
            return at + 1
        at += 2 if words[at] in with_value else 1
    return at


def _python(now: Started, rest: list[str]) -> Started | None:
    at = 0
    while at < len(rest) and rest[at].startswith("-"):
        option = rest[at]
        if option.startswith("-m") or (not option.startswith("--") and option.endswith("m")):
            module = option[2:] if option.startswith("-m") and len(option) > 2 else ""
            module, arguments = (
                (module, rest[at + 1 :])
                if module
                else ("".join(rest[at + 1 : at + 2]), rest[at + 2 :])
            )
            return (
                _optillm(now, arguments, f"python -m {module}")
                if module.split(".")[0] == "optillm"
                else None
            )
        if option == "-c":
            return None
        at += 2 if option in ("-W", "-X", "--check-hash-based-pycs") else 1
    if at < len(rest):
        path = PurePosixPath(rest[at])
        whole = path.name in ("optillm", "optillm.py") or path.parts[-2:] == (
            "optillm",
            "server.py",
        )
        if whole:
            return _optillm(now, rest[at + 1 :], f"python {path.name}")
    return None


def _optillm(now: Started, arguments: Sequence[str], wrapper: str) -> Started:
    wrappers = (*now.wrappers, wrapper)
    return replace(now, arguments=tuple(arguments), is_optillm=True, wrappers=wrappers)


def _env(now: Started, rest: list[str]) -> Started | None:
    environment, places = dict(now.environment), dict(now.places)
    directory = now.directory
    while rest and (rest[0].startswith("-") or _ASSIGNMENT.fullmatch(rest[0])):
        word = rest.pop(0)
        if word in ("-i", "--ignore-environment", "-"):
            environment, places = {}, {}
        elif word in ("-u", "--unset") and rest:
            environment.pop(rest.pop(0), None)
        elif word.startswith("--unset="):
            environment.pop(word.partition("=")[2], None)
        elif word in ("-C", "--chdir") and rest:
            directory = rest.pop(0)
        elif word in ("-S", "--split-string") and rest:
            rest = [*rest.pop(0).split(), *rest]
        elif pair := _ASSIGNMENT.fullmatch(word):
            environment[pair[1]], places[pair[1]] = pair[2], "env in ExecStart="
    return _inside(now, rest, "env", environment=environment, places=places, directory=directory)


_UV_VALUES = frozenset(
    """
    --directory --project --python -p --with -w --with-editable --with-requirements --env-file
    --from --extra --group --only-group --no-group --package --index --default-index --index-url -i
    --extra-index-url --find-links -f --cache-dir --config-file --constraint -c --resolution
    --color --config-setting --link-mode --refresh-package
    """.split()  # noqa: SIM905
)


def _uv(now: Started, rest: list[str], read: Reader) -> Started | None:
    directory, files = now.directory, []
    before = _options_end(rest, _UV_VALUES)
    options, rest = rest[:before], rest[before:]
    if rest[:2] == ["tool", "run"]:
        rest = rest[2:]
    elif rest[:1] == ["run"]:
        rest = rest[1:]
    else:
        return None
    module = False
    end = _options_end(rest, _UV_VALUES)
    options, rest = [*options, *rest[:end]], rest[end:]
    for option, value in zip(options, [*options[1:], ""], strict=False):
        name, sign, own = option.partition("=")
        if name in ("--directory", "--project"):
            directory = own if sign else value
        elif name == "--env-file":
            files.append(own if sign else value)
        module = module or option in ("-m", "--module")
    if not rest:
        return None
    environment, places = dict(now.environment), dict(now.places)
    for name in files:
        variables = envfile.shell_variables((read(_at(directory, name)) or "").encode())
        for variable, value in variables.items():  # uv does not override variables
            if variable not in environment:
                environment[variable], places[variable] = value, name
    words = ["python", "-m", *rest] if module else [re.sub(r"@[^/]*$", "", rest[0]), *rest[1:]]
    return _inside(
        now, words, "uv run", environment=environment, places=places, directory=directory
    )


def _at(directory: str, name: str) -> str:
    return name if name.startswith("/") or not directory else f"{directory}/{name}"


_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "ash", "busybox"})
#: A longer file is not a hand-written script. Characters.
_SCRIPT_LENGTH = 100_000


def _script(now: Started, read: Reader) -> Started | None:
    """Follow a shell script."""
    path = _at(now.directory, now.words[0])
    text = read(path) if "/" in now.words[0] else None
    if text is None or len(text) > _SCRIPT_LENGTH or not text.startswith("#!"):
        return None
    interpreter = [w for w in text.partition("\n")[0][2:].split() if not w.startswith("-")]
    if not interpreter or _name(interpreter[-1]) not in _SHELLS:
        return None
    return _shell_text(now, text, (path, *now.words[1:]), path, read)


def _shell(now: Started, rest: list[str], read: Reader) -> Started | None:
    rest = rest[1:] if _name(now.words[0]) == "busybox" and rest[:1] == ["sh"] else rest
    named = False
    while rest and rest[0].startswith(("-", "+")) and len(rest[0]) > 1:
        option = rest.pop(0)
        if option in ("-o", "+o", "-O", "+O", "--rcfile", "--init-file") and rest:
            rest.pop(0)
        elif not option.startswith("--") and "c" in option[1:]:
            named = True
    if not rest:
        return None
    if named:
        return _shell_text(now, rest[0], tuple(rest[1:] or ["sh"]), "a shell", read)
    path = _at(now.directory, rest[0])
    text = read(path)
    return None if text is None else _shell_text(now, text, (path, *rest[1:]), path, read)


@dataclass
class _Shell:
    """The state of a shell between its commands."""

    environment: dict[str, str]
    places: dict[str, str]
    directory: str
    parameters: tuple[str, ...]
    read: Reader
    wrapper: str

    def value(self, name: str) -> str:
        if name.isdigit():
            return self.parameters[int(name)] if int(name) < len(self.parameters) else ""
        return self.environment.get(name, "")

    def set(self, pairs: Sequence[re.Match[str]], where: str = "") -> None:
        for pair in pairs:
            self.environment[pair[1]], self.places[pair[1]] = pair[2], where or self.wrapper


def _shell_text(
    now: Started, text: str, parameters: tuple[str, ...], wrapper: str, read: Reader
) -> Started | None:
    """The first command of a shell's text that leads to OptiLLM."""
    shell = _Shell(
        dict(now.environment), dict(now.places), now.directory, parameters, read, wrapper
    )
    wrappers = (*now.wrappers, wrapper)
    if wrapper in now.wrappers and wrapper.startswith("/"):
        return None  # a script that starts itself
    for command in _commands(text, shell):
        inside = replace(
            now,
            words=tuple(command),
            environment=dict(shell.environment),
            places=dict(shell.places),
            directory=shell.directory,
            wrappers=wrappers,
        )
        if (final := _follow(inside, read)).is_optillm:
            return final
    return None


_KEYWORDS = frozenset(
    {"then", "do", "else", "elif", "if", "while", "until", "!", "{", "(", "fi", "done", "}", ")"}
)


def _commands(text: str, shell: _Shell) -> Iterator[list[str]]:
    """The simple commands, each with the variables that earlier ones set.

    A command that only sets variables is empty.
    """
    for tokens in _Lexer(text, shell).run():
        words = list(tokens)
        while words and words[0] in _KEYWORDS:
            words.pop(0)
        pairs = []
        while words and (pair := _ASSIGNMENT.fullmatch(words[0])):
            pairs.append(pair)
            words.pop(0)
        shell.set(pairs)
        yield _followed(words, shell)


def _followed(words: list[str], shell: _Shell) -> list[str]:
    """Apply a command to the state of the shell. Returns [] for `cd`, `export` and `source`."""
    first, rest = (words[0], words[1:]) if words else ("", [])
    if first in ("export", "declare", "readonly", "typeset", "local"):
        shell.set([pair for word in rest if (pair := _ASSIGNMENT.fullmatch(word))])
    elif first == "cd" and rest:
        shell.directory = _at(shell.directory, rest[-1])
    elif first in ("source", ".") and rest:
        _source(rest[0], shell)
    else:
        return words
    return []


def _source(name: str, shell: _Shell) -> None:
    """Apply the assignments of a sourced file. `activate` of a venv is ignored."""
    if PurePosixPath(name).name.startswith("activate"):
        return
    path = _at(shell.directory, name)
    for name_, value in envfile.shell_variables((shell.read(path) or "").encode()).items():
        if _VARIABLE.fullmatch(name_):
            shell.environment[name_], shell.places[name_] = value, path


class _Lexer:
    """Splits a shell's text into words.

    It knows the parts of POSIX shell that start scripts use.
    """

    def __init__(self, text: str, shell: _Shell) -> None:
        self.text, self.shell, self.at = text, shell, 0
        self.words: list[str] = []

    def run(self) -> Iterator[list[str]]:
        """The words of each command. The caller may change the shell before the next one."""
        while self.at < len(self.text):
            sign = self.text[self.at]
            if sign in " \t\r":
                self.at += 1
            elif sign == "\\" and self.text[self.at + 1 : self.at + 2] == "\n":
                self.at += 2
            elif sign == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif sign in "\n;&|()":
                self.at += 1
                yield from self._taken()
            elif sign in "<>" or re.match(r"\d+[<>]", self.text[self.at :]):
                self._redirection()
            elif self.text.startswith('"$@"', self.at):
                self.at += 4
                self.words += self.shell.parameters[1:]
            else:
                self.words += self._word()
        yield from self._taken()

    def _taken(self) -> Iterator[list[str]]:
        if self.words:
            words, self.words = self.words, []
            yield words

    def _redirection(self) -> None:
        match = re.match(r"\d*(<<<?|>>|>&|<&|>\||[<>])&?\s*", self.text[self.at :])
        assert match is not None
        self.at += match.end()
        self._word()

    def _word(self) -> list[str]:
        """The words at this position. An unquoted variable may give none or several."""
        parts: list[str] = [""]
        quoted = False
        while self.at < len(self.text) and (sign := self.text[self.at]) not in " \t\r\n;&|()<>":
            self.at += 1
            if sign == "'":
                end = self.text.find("'", self.at)
                end = len(self.text) if end < 0 else end
                parts[-1] += self.text[self.at : end]
                self.at, quoted = end + 1, True
            elif sign == '"':
                parts[-1] += self._double()
                quoted = True
            elif sign == "\\":
                parts[-1] += self.text[self.at : self.at + 1].replace("\n", "")
                self.at += 1
            elif sign == "~" and parts == [""] and re.match(r"[\s/]|$", self.text[self.at :]):
                parts[-1] += self.shell.value("HOME")
            elif sign in "$`":
                value = self._dollar(sign)
                is_assignment = _ASSIGNMENT.fullmatch(parts[0]) is not None
                fields = [value] if is_assignment else value.split()
                parts[-1] += "".join(fields[:1])
                parts += fields[1:]
            else:
                parts[-1] += sign
        return parts if quoted or parts != [""] else []

    def _double(self) -> str:
        text = ""
        while self.at < len(self.text) and (sign := self.text[self.at]) != '"':
            self.at += 1
            if sign == "\\" and self.text[self.at : self.at + 1] in ('"', "\\", "$", "`", "\n"):
                text += self.text[self.at].replace("\n", "")
                self.at += 1
            elif sign in "$`":
                text += self._dollar(sign)
            else:
                text += sign
        self.at += 1
        return text

    def _dollar(self, sign: str) -> str:
        """The value of `$NAME`, `${NAME:-default}`, `$(program)` or backticks, after its sign."""
        rest = self.text[self.at :]
        if sign == "`" or rest.startswith("("):
            inner, length = _nested(rest, sign)
            self.at += length
            return self._output(inner)
        if match := re.match(r"\{([A-Za-z_]\w*|\d)(?::?([-=?+])([^}]*))?\}", rest):
            self.at += match.end()
            value = self.shell.value(match[1])
            default = (match[3] or "").strip("'\"")
            if match[2] in ("-", "="):
                return value or default
            return (default if value else "") if match[2] == "+" else value
        if match := re.match(r"[A-Za-z_]\w*|\d", rest):
            self.at += match.end()
            return self.shell.value(match[0])
        if rest[:1] in ("@", "*"):
            self.at += 1
            return " ".join(self.shell.parameters[1:])
        if rest.startswith("{"):  # for example ${NAME%.*}
            end = rest.find("}")
            self.at += len(rest) if end < 0 else end + 1
            return UNKNOWN
        return "$"

    def _output(self, command: str) -> str:
        """The output of a command. It is known only for `cat FILE` and `<FILE`."""
        match = re.fullmatch(
            r"\s*(?:(?:/usr)?(?:/bin/)?cat\s+|<\s*)[\"']?([^\s\"'$]+)[\"']?\s*", command
        )
        text = self.shell.read(_at(self.shell.directory, match[1])) if match else None
        return UNKNOWN if text is None else text.rstrip("\n")


def _nested(text: str, sign: str) -> tuple[str, int]:
    """(the text inside, the length with its marks) of backticks or parentheses."""
    if sign == "`":
        end = text.find("`")
        return (text, len(text)) if end < 0 else (text[:end], end + 1)
    depth = 0
    for at, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return text[1:at], at + 1
    return text[1:], len(text)


#: OptiLLM's flags without a value.
_SWITCHES = frozenset(
    """
    --return-full-response --launch-gui --log-conversations --batch-mode --ssl-verify
    --no-ssl-verify --version --help -h
    """.split()  # noqa: SIM905
)
#: OptiLLM's flags with a value. Flags of CePO begin with --cepo_.
_VALUES = frozenset(
    """
    --optillm-api-key --approach --mcts-simulations --mcts-exploration --mcts-depth --model
    --rstar-max-depth --rstar-num-rollouts --rstar-c --n --host --port --log --plugins-dir
    --conversation-log-dir --best-of-n --best_of_n
    --base-url --base_url --ssl-cert-path --batch-size --batch-wait-ms --cepo_config_file
    """.split()  # noqa: SIM905
)
_SAME = {"--base_url": "--base-url", "--best_of_n": "--best-of-n"}


def _whole(name: str) -> str:
    """The flag that a word means: argparse accepts an unambiguous beginning."""
    if name in _VALUES or name in _SWITCHES:
        return _SAME.get(name, name)
    fitting = {_SAME.get(f, f) for f in (*_VALUES, *_SWITCHES) if f.startswith(name)}
    return fitting.pop() if len(fitting) == 1 and name.startswith("--") else name


def flags(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """(flag -> value, or "" without one; problems). Problems do not quote a word."""
    values: dict[str, str] = {}
    problems = []
    at = 0
    while at < len(arguments):
        word = arguments[at]
        at += 1
        if not word.startswith("-"):
            problems.append("a word of its command line does not belong to a flag")
            continue
        name, sign, value = word.partition("=")
        name = _whole(name)
        takes = (
            name in _VALUES
            or name.startswith("--cepo_")
            or (name not in _SWITCHES and at < len(arguments) and not arguments[at].startswith("-"))
        )
        if not sign and takes:
            if at >= len(arguments) or (arguments[at].startswith("--") and name in _VALUES):
                problems.append(f"{name} has no value")
                continue
            value = arguments[at]
            at += 1
        values[name] = value
    return values, problems
