"""Run `optictl ... --output json` on the host, and tell Ansible what it said."""

from __future__ import annotations

import json
import os
import time

#: What the modules that drive one deployment have in common.
ARGUMENTS = {
    "program": {"type": "path", "default": "/opt/optictl/current/bin/optictl"},
    "name": {"type": "str", "default": "optillm-proxy"},
    "root": {"type": "path"},
    "patience": {"type": "int", "default": 900},
}
ROLLED_BACK = 4
#: The `action` of two steps in a plan of optictl: the words of the classes `BuildRelease` and `SwitchRelease`.
BUILD_RELEASE = "build"
SWITCH_RELEASE = "switch"
#: How an optictl says that another one holds the lock of the deployment.
_BUSY = "is working on this deployment"


class Answer:
    """What one run of optictl said: its exit code and the parts of its JSON envelope."""

    def __init__(self, rc, envelope, stderr):
        self.rc = rc
        self.results = envelope.get("results", [])
        self.error = envelope.get("error") or {}
        self.envelope = envelope
        self.stderr = stderr

    @property
    def red(self):
        """The results that are not good, by id."""
        return {one["id"]: one for one in self.results if one.get("status") in ("fail", "error")}

    @property
    def words(self):
        """Why it failed, in one line."""
        if self.error.get("what"):
            return self.error["what"]
        if self.red:
            return "; ".join(f"{name}: {one.get('found', '')}" for name, one in self.red.items())
        return (self.stderr.strip().splitlines() or [f"optictl ended with {self.rc}"])[-1]

    @property
    def remedy(self):
        """The command that mends it, or ""."""
        return self.error.get("remedy") or next(
            (one["remedy"] for one in self.red.values() if one.get("remedy")), ""
        )


class Optictl:
    """The optictl of one deployment on this host."""

    def __init__(self, module):
        self.module = module
        base = module.params["root"] or "/"
        self.etc = os.path.join(base, "etc", module.params["name"])
        self.opt = os.path.join(base, "opt", module.params["name"])

    @property
    def is_there(self):
        """Whether the program can be run."""
        return os.access(self.module.params["program"], os.X_OK)

    @property
    def release(self):
        """The name of the release in force, or None."""
        try:
            return os.path.basename(os.readlink(os.path.join(self.opt, "current")))
        except OSError:
            return None

    def run(self, *words, **options):
        """One command of optictl. `program`: another one than the module was given."""
        command = [
            options.get("program") or self.module.params["program"],
            *words,
            "--output",
            "json",
        ]
        if self.module.params["root"]:
            command += ["--root", self.module.params["root"]]
        if self.module.params["name"] != ARGUMENTS["name"]["default"]:
            command += ["--name", self.module.params["name"]]
        deadline = time.monotonic() + self.module.params["patience"]
        while True:
            answer = self._once(command)
            if not answer.error.get("what", "").endswith(_BUSY) or time.monotonic() > deadline:
                return answer
            time.sleep(5)

    def _once(self, command):
        rc, stdout, stderr = self.module.run_command(command, environ_update={"NO_COLOR": "1"})
        try:
            envelope = json.loads(stdout)
        except ValueError:
            envelope = {}
        return Answer(rc, envelope, stderr)

    def need(self):
        """End the module where there is no optictl."""
        if not self.is_there:
            self.module.fail_json(
                msg=f"there is no optictl at {self.module.params['program']}",
                remedy="install it first",
            )

    def good(self, *words):
        """The results of one command, which ends the module where it is red."""
        answer = self.run(*words)
        if answer.rc:
            self.fail(answer)
        return answer.results

    def fail(self, answer, **more):
        """End the module with what optictl said."""
        told = dict(
            rc=answer.rc,
            remedy=answer.remedy,
            problems=answer.error.get("problems", []),
            results=answer.results,
        )
        told.update(more)
        message = told.pop("msg", None) or answer.words
        self.module.fail_json(msg=message, **told)


def targets(changes, action):
    """The targets of a plan's steps that have this action."""
    return [change["target"] for change in changes if change["action"] == action]


def step_names(changes):
    """Each step of a plan in two words: its action and its target."""
    return [f"{change['action']} {change['target']}" for change in changes]


def difference(changes):
    """A plan of optictl as Ansible shows differences."""
    return [
        {
            "prepared": one["diff"]
            if one["diff"].startswith("---")
            else f"{one['action']} {one['target']} ({one['reason']})\n"
        }
        for one in changes
    ]
