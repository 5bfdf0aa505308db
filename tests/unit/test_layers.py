"""The architecture, read from the source: imports point down, effects and prints have one place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import pytest

import optictl
from testing.layers import LAYERS

PACKAGE = Path(optictl.__file__).resolve().parent

RANK = {name: number for number, names in enumerate(LAYERS) for name in names}

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """`checks/engine.py` -> "checks.engine"; a package is its own name."""
    parts = [
        *path.relative_to(PACKAGE).parent.parts,
        *([] if path.stem == "__init__" else [path.stem]),
    ]
    return ".".join(parts) or "optictl"


NAMES = {name_of(path) for path in MODULES}


def room(name: str) -> str:
    """The entry of LAYERS that a module belongs to."""
    fitting = [key for key in RANK if name == key or name.startswith(f"{key}.")]
    assert fitting, f"{name} has no place in LAYERS"
    return max(fitting, key=len)


def imports(path: Path) -> Iterator[str]:
    """The modules of optictl that a module imports, also inside functions and for types only."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (
                a.name.removeprefix("optictl.")
                for a in node.names
                if a.name.split(".")[0] == "optictl"
            )
        elif (
            isinstance(node, ast.ImportFrom)
            and node.level == 0
            and (node.module or "").split(".")[0] == "optictl"
        ):
            base = (node.module or "").removeprefix("optictl").removeprefix(".")
            for alias in node.names:
                whole = f"{base}.{alias.name}".removeprefix(".")
                yield whole if whole in NAMES else base or "optictl"


def dotted(node: ast.AST) -> str:
    """`os.path.join` as text; "" for what is no plain name."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def calls(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield node.lineno, dotted(node.func)


def test_imports_point_down() -> None:
    wrong = []
    for path in MODULES:
        own = room(name_of(path))
        others = {name: room(name) for name in imports(path)}
        wrong += [
            f"{name_of(path)} -> {name}"
            for name, other in others.items()
            if other != own and RANK[other] >= RANK[own]
        ]
    assert wrong == []


def test_every_module_has_a_place() -> None:
    assert {room(name) for name in NAMES} == set(RANK)


def test_the_guard_imports_nothing_of_optictl_but_itself() -> None:
    """It is copied into a release, where there is no optictl."""
    inside = [path for path in MODULES if room(name_of(path)) == "guard"]
    assert len(inside) > 5
    for path in inside:
        assert list(imports(path)) == [], path.name
        leaving = [
            n
            for n in ast.walk(ast.parse(path.read_text()))
            if isinstance(n, ast.ImportFrom) and n.level > 1
        ]
        assert leaving == [], path.name


def test_the_collection_imports_nothing_of_optictl() -> None:
    """Its modules run on hosts where there is no optictl yet."""
    inside = [path for path in MODULES if room(name_of(path)) == "collections"]
    assert len(inside) > 9
    assert [path.name for path in inside if list(imports(path))] == []


#: Calls that change the machine or start something.
METHODS = {
    "write_text",
    "write_bytes",
    "unlink",
    "rmdir",
    "mkdir",
    "rename",
    "touch",
    "chmod",
    "lchmod",
    "symlink_to",
    "hardlink_to",
}
FUNCTIONS = {
    "os": {
        "remove",
        "unlink",
        "rmdir",
        "mkdir",
        "makedirs",
        "rename",
        "replace",
        "chmod",
        "fchmod",
        "chown",
        "symlink",
        "link",
        "truncate",
        "ftruncate",
        "kill",
        "killpg",
        "fork",
        "system",
        "setuid",
        "execv",
        "execve",
        "execvp",
        "posix_spawn",
    },
    "subprocess": {"run", "Popen", "call", "check_call", "check_output"},
    "shutil": {"rmtree", "copytree", "copy", "copy2", "copyfile", "move", "chown"},
    "tempfile": {"mkstemp", "mkdtemp", "TemporaryDirectory", "NamedTemporaryFile"},
}
#: host is where effects live; guard and the stand-in are servers; Ansible takes the collection to
#: other hosts.
FREE = ("host", "guard", "proof.standin", "collections")


def is_free(name: str) -> bool:
    return name.startswith(FREE)


def is_effect(called: str) -> bool:
    owner, _, last = called.rpartition(".")
    return last in FUNCTIONS.get(owner, METHODS)


def test_effects_live_in_host() -> None:
    found = [
        f"{name_of(path)}:{line} {called}"
        for path in MODULES
        if not is_free(name_of(path))
        for line, called in calls(path)
        if is_effect(called)
    ]
    assert found == []


def test_the_search_for_effects_sees_those_of_host() -> None:
    """The test above is worth something: the same search finds what host does."""
    for module, effect in (
        ("files.py", "os.fchmod"),
        ("uv.py", "subprocess.run"),
        ("processes.py", "subprocess.Popen"),
    ):
        assert effect in {
            called for _, called in calls(PACKAGE / "host" / module) if is_effect(called)
        }


def test_nothing_but_a_log_is_opened_for_writing_outside_of_host() -> None:
    found = []
    for path in MODULES:
        if is_free(name_of(path)):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and dotted(node.func).rpartition(".")[2] == "open":
                words = [
                    a.value
                    for a in (*node.args, *(k.value for k in node.keywords))
                    if isinstance(a, ast.Constant)
                ]
                if any(isinstance(w, str) and set(w) & set("wax+") for w in words):
                    found.append(dotted(node.func))
    assert set(found) == {"log.open"}


def opens_for_writing(call: ast.Call) -> bool:
    if dotted(call.func).rpartition(".")[2] != "open":
        return False
    values = [a.value for a in (*call.args, *(k.value for k in call.keywords)) if is_text(a)]
    return dotted(call.func) == "os.open" or any(set(v) & set("wax+") for v in values)


def is_text(node: ast.AST) -> TypeGuard[ast.Constant]:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


@dataclass(frozen=True)
class Function:
    """A function or method: its module, its body, and what the names that it imports stand for."""

    module: str
    body: ast.FunctionDef
    imported: dict[str, str]

    def has_effect(self) -> bool:
        inside = [node for node in ast.walk(self.body) if isinstance(node, ast.Call)]
        return any(
            is_effect(dotted(call.func)) or opens_for_writing(call) or asks_for_a_change(call)
            for call in inside
        )

    def uses(self) -> set[str]:
        """The functions that it names, called or not, as `host.files.write`.

        Methods of a manager of systemd are named as `host.systemd.Systemd.stop`.
        """
        named = set()
        for node in ast.walk(self.body):
            if isinstance(node, ast.Name):
                named.add(self.imported.get(node.id, f"{self.module}.{node.id}"))
            elif isinstance(node, ast.Attribute):
                owner = ast.unparse(node.value)
                named.add(f"{self.imported.get(owner, owner)}.{node.attr}")
                if "systemd" in owner or "manager" in owner:
                    named.add(f"host.systemd.Systemd.{node.attr}")
                if owner == "self":
                    named |= {
                        name
                        for name in FUNCTION_BODIES
                        if name.startswith(f"{self.module}.") and name.endswith(f".{node.attr}")
                    }
        return named


#: What systemctl is asked without changing anything.
QUESTIONS = {"show", "--version", "list-sockets", "show-environment"}


def asks_for_a_change(call: ast.Call) -> bool:
    """Whether systemctl is called with a command that is none of QUESTIONS."""
    words = [a.value if is_text(a) else "" for a in call.args[:2]]
    return words[:1] == ["systemctl"] and not QUESTIONS.issuperset(words[1:])


def imported_names(tree: ast.Module) -> dict[str, str]:
    """`files` -> "host.files" for `from optictl.host import files`."""
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}".removeprefix("optictl.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("optictl")
        for alias in node.names
    }


def function_bodies() -> dict[str, Function]:
    """Every function and method of optictl: `host.files.write`, `host.systemd.Systemd.stop`."""
    bodies = {}
    for path in MODULES:
        name, tree = name_of(path), ast.parse(path.read_text())
        imported = imported_names(tree)
        for node in tree.body:
            owner = f"{name}.{node.name}." if isinstance(node, ast.ClassDef) else f"{name}."
            for body in node.body if isinstance(node, ast.ClassDef) else [node]:
                if isinstance(body, ast.FunctionDef):
                    bodies[owner + body.name] = Function(name, body, imported)
    return bodies


FUNCTION_BODIES = function_bodies()
#: They start a program that only reads. Any other function that starts one counts as a writer.
READ_WITH_A_PROGRAM = {
    "host.program.commit",
    "host.processes.readable_as",
    "host.systemd.Systemd._run",
    "host.systemd.Systemd.stream_journal",
    "host.uv.inspect",
    "host.uv.offered_by_apt",
    "host.uv.version_of",
}


def writers() -> set[str]:
    """Every function that reaches an effect, by itself or through others."""
    known = {name for name, one in FUNCTION_BODIES.items() if one.has_effect()}
    known -= READ_WITH_A_PROGRAM
    uses = {name: one.uses() for name, one in FUNCTION_BODIES.items()}
    while more := {name for name, used in uses.items() if used & known} - known:
        known |= more
    return known


#: Rooms that only read.
READING = ("checks", "facts", "observe")
#: The exception, and what it reaches: `release.starts` runs a release in a temporary directory.
MAY_WRITE = {"checks.installed.release_starts": {"releases.build.prove"}}


def test_checks_facts_and_observations_only_read() -> None:
    known = writers()
    wrong = {
        name: reached
        for name, one in FUNCTION_BODIES.items()
        if name.startswith(READING)
        and (reached := {u for u in one.uses() & known if not u.startswith(READING)})
    }
    assert wrong == MAY_WRITE


def test_the_search_for_writers_finds_those_of_host() -> None:
    """The test above can fail: it sees writes by a function itself, by another, and by systemd."""
    known = writers()
    readers = {
        "host.files.read",
        "host.files.file_facts",
        "host.processes.read_process",
        "host.systemd.Systemd.show",
        "host.systemd.Systemd.journal",
        "releases.release_record.read",
        "releases.store.active_release",
    }
    assert known >= {
        "host.files.write",
        "host.files.exclusive",
        "host.files.scratch",
        "host.processes.start",
        "host.processes.credentials",
        "host.systemd.Systemd.start",
        "host.systemd.Systemd.reset_failed",
        "host.uv.install",
        "releases.store.switch",
    }
    assert readers <= FUNCTION_BODIES.keys() - known


def test_one_module_prints() -> None:
    """report, and the line of --version. The guard in the service writes to the journal."""
    printers = {
        "print",
        "sys.stdout.write",
        "sys.stderr.write",
        "typer.echo",
        "typer.secho",
        "rich.print",
    }
    found = [
        (name_of(path), called)
        for path in MODULES
        if room(name_of(path)) != "guard" and room(name_of(path)) != "output"
        for _, called in calls(path)
        if called in printers
    ]
    assert found == [("cli", "sys.stdout.write")]


#: Lines of a function, with its signature and docstring. The guard is not held to it.
LONGEST = 40


def long_functions(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > LONGEST:
                yield f"{path.name}:{node.lineno} {node.name}: {lines} lines"


def test_functions_are_short(tmp_path: Path) -> None:
    inside = [path for path in MODULES if room(name_of(path)) != "guard"]
    assert [text for path in inside for text in long_functions(path)] == []
    long = tmp_path / "long.py"
    long.write_text("def f():\n" + "    pass\n" * LONGEST)
    assert list(long_functions(long)) == ["long.py:1 f: 41 lines"]


def test_every_module_says_what_it_is() -> None:
    assert [
        path.name for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))
    ] == []


@pytest.mark.parametrize(
    "module",
    [
        *(
            "deployment.config",
            "deployment.config_sections",
            "deployment.config_yaml",
            "deployment.render",
            "operations.plan",
            "deployment.model_names",
            "deployment.paths",
        ),
        *("guard.invariants", "guard.envfile"),
        *(f"requests.compare.{name}" for name in ("stats", "questions", "summary", "page")),
        "observe.top.model",
        *("litellm.read", "litellm.providers", "litellm.graph", "litellm.judge"),
        *("releases.targets", "fleet.playbook_events"),
        "host.uv_settings",
        *("takeover.unitfile", "takeover.command", "takeover.handmade", "takeover.proposal"),
        *("takeover.taken", "takeover.taken_settings", "takeover.taken_keys", "takeover.not_taken"),
        *("takeover.record", "takeover.table", "deployment.invocation", "deployment.remedies"),
    ],
)
def test_what_is_pure_imports_no_way_to_the_machine(module: str) -> None:
    source = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    for node in ast.walk(ast.parse(source.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert name.split(".")[0] not in {
                "os",
                "subprocess",
                "shutil",
                "socket",
                "httpx",
                "requests",
                "tempfile",
            }, name
