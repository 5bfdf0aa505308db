"""Run `optictl ... --output json` on the host, and return its result to Ansible."""

from __future__ import annotations

import json
import os
import time

#: Arguments that all modules for a deployment share.
ARGUMENTS = {
    "program": {"type": "path", "default": "/opt/optictl/current/bin/optictl"},
    "name": {"type": "str", "default": "optillm-proxy"},
    "root": {"type": "path"},
    "patience": {"type": "int", "default": 900},
}
ROLLED_BACK = 4
#: The `action` of two steps in a plan of optictl: the words of the classes `BuildRelease` and
#: `SwitchRelease`.
BUILD_RELEASE = "build"
SWITCH_RELEASE = "switch"
#: The end of the error of an optictl without error codes when another one holds the lock.
_BUSY = "is working on this deployment"


class Answer:
    """The result of one run of optictl: its exit code and the parts of its JSON envelope."""

    def __init__(self, rc, envelope, stderr):
        self.rc = rc
        self.results = envelope.get("results", [])
        self.error = envelope.get("error") or {}
        self.envelope = envelope
        self.stderr = stderr

    @property
    def failures(self):
        """The failed results, by id."""
        return {one["id"]: one for one in self.results if one.get("status") in ("fail", "error")}

    @property
    def is_locked(self):
        """Whether another optictl works on the same deployment."""
        return self.error.get("code") == "locked" or self.error.get("what", "").endswith(_BUSY)

    @property
    def words(self):
        """The reason of the failure, in one line."""
        if self.error.get("what"):
            return self.error["what"]
        if self.failures:
            return "; ".join(
                f"{name}: {result.get('found', '')}" for name, result in self.failures.items()
            )
        return (self.stderr.strip().splitlines() or [f"optictl ended with {self.rc}"])[-1]

    @property
    def remedy(self):
        """The command that fixes it, or ""."""
        return self.error.get("remedy") or next(
            (one["remedy"] for one in self.failures.values() if one.get("remedy")), ""
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
        """The name of the active release, or None."""
        try:
            return os.path.basename(os.readlink(os.path.join(self.opt, "current")))
        except OSError:
            return None

    def run(self, *words, **options):
        """Run a command of optictl. `program`: another program than the module's parameter."""
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
            if not answer.is_locked or time.monotonic() > deadline:
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
        """End the module with an error when optictl is not installed."""
        if not self.is_there:
            self.module.fail_json(
                msg=f"there is no optictl at {self.module.params['program']}",
                remedy="run optillm_program first",
            )

    def good(self, *words):
        """The results of a command. End the module when the command fails."""
        answer = self.run(*words)
        if answer.rc:
            self.fail(answer)
        return answer.results

    def fail(self, answer, **more):
        """End the module with optictl's error."""
        details = dict(
            rc=answer.rc,
            remedy=answer.remedy,
            problems=answer.error.get("problems", []),
            results=answer.results,
        )
        details.update(more)
        message = details.pop("msg", None) or answer.words
        self.module.fail_json(msg=message, **details)


def targets(changes, action):
    """The targets of a plan's steps that have this action."""
    return [change["target"] for change in changes if change["action"] == action]


def step_names(changes):
    """Each step of a plan in two words: its action and its target."""
    return [f"{change['action']} {change['target']}" for change in changes]


def difference(changes):
    """A plan of optictl in Ansible's form of differences."""
    return [
        {
            "prepared": one["diff"]
            if one["diff"].startswith("---")
            else f"{one['action']} {one['target']} ({one['reason']})\n"
        }
        for one in changes
    ]
