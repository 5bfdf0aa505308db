#!/usr/bin/python
"""Install, change or remove a deployment of OptiLLM with optictl."""

from __future__ import annotations

DOCUMENTATION = r"""
module: optillm_deployment
short_description: Install, change, upgrade or remove a deployment of OptiLLM
version_added: 0.1.0
description:
  - Runs C(optictl) on the host. It builds a new release next to the active one, tests it with the
    live upstream, switches to it, checks it, and tests it again.
  - After a failure, the host returns to its previous release, configuration and keys, and the
    module fails with C(rolled_back=true).
author: optictl maintainers (@optictl)
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
  - optictl.optillm.deployment
options:
  state:
    description:
      - V(present) installs or changes the deployment, and checks it.
      - V(built) only builds the release for V(present), and does not change the active release.
      - V(absent) removes everything that C(optictl) created.
    type: str
    choices: [present, built, absent]
    default: present
  configuration:
    description: The text of C(optictl.yaml). If not given, the host keeps its file.
    type: str
  version:
    description: The version of OptiLLM, if O(configuration) does not set it. Default, the version
      in the host's file.
    type: str
  upstream_key:
    description: The key that OptiLLM sends to LiteLLM. If not given, the host keeps its key.
    type: str
  proxy_key:
    description: The key that LiteLLM sends to OptiLLM. If not given, the host keeps its key or gets
      a new one.
    type: str
  wheelhouse:
    description: A directory on the host with wheels. It replaces the package index.
    type: path
  python:
    description: The Python interpreter on the host.
    type: path
  going_back_program:
    description: The C(optictl) that installed the active release, if it is not O(program). A
      rollback uses it.
    type: path
  smoke:
    description: Send one real request at the end of a first installation. It costs tokens.
    type: bool
    default: true
  force:
    description: Overwrite files with local changes. A backup is kept.
    type: bool
    default: false
  purge:
    description: With O(state=absent), also remove the configuration and the keys.
    type: bool
    default: false
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
  platform: {platforms: posix}
"""

EXAMPLES = r"""
- name: OptiLLM in front of the LiteLLM of this host
  optictl.optillm.optillm_deployment:
    configuration: |
      base_models: [jerry-xl]
      model: jerry-xl
    upstream_key: "{{ vault_litellm_key }}"

- name: Another version of OptiLLM
  optictl.optillm.optillm_deployment:
    version: 0.3.13
"""

RETURN = r"""
release:
  description: The active release, a version and a hash of its content.
  returned: always
  type: str
  sample: 0.3.12-0123456789ab
before:
  description: The release that was active before, or "".
  returned: always
  type: str
actions:
  description: The actions, done or in check mode planned.
  returned: success
  type: list
  elements: str
rolled_back:
  description: Whether the release that was active before is active again.
  returned: failure
  type: bool
remedy:
  description: The command that fixes it.
  returned: failure
  type: str
results:
  description: The results in the JSON output of C(optictl).
  returned: always
  type: list
  elements: dict
"""

import os
import re
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.optictl.optillm.plugins.module_utils.optictl import (
    ARGUMENTS,
    BUILD_RELEASE,
    ROLLED_BACK,
    Optictl,
    difference,
    step_names,
    targets,
)

_KEY_LINE = re.compile(r"^(?:[ \t]*export[ \t]+)?OPENAI_API_KEY=.*$", re.MULTILINE)


def read(path):
    """The text of a file. None when there is no file."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def write(path, text, mode):
    """Replace a file atomically. The new file has its final mode before it has any content."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    new = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.ansible")
    if os.path.lexists(new):
        os.unlink(new)
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(new, path)


class Inputs:
    """The operator's files: their texts before this run, and the wanted texts."""

    def __init__(self, params, etc):
        self.config = os.path.join(etc, "optictl.yaml")
        env, key = os.path.join(etc, "env"), os.path.join(etc, "proxy_key")
        self.modes = {self.config: 0o644, env: 0o600, key: 0o600}
        self.before = {path: read(path) for path in self.modes}
        self.wanted = dict(self.before)
        if params["configuration"] is not None:
            self.wanted[self.config] = params["configuration"]
        if params["upstream_key"] is not None:
            line, text = f"OPENAI_API_KEY={params['upstream_key']}", self.before[env] or ""
            there = _KEY_LINE.search(text)
            self.wanted[env] = (
                _KEY_LINE.sub(lambda _match: line, text) if there else f"{text}{line}\n"
            )
        if params["proxy_key"] is not None:
            self.wanted[key] = params["proxy_key"] + "\n"

    @property
    def changed(self):
        """The paths whose text changes."""
        return [path for path in self.modes if self.wanted[path] != self.before[path]]

    def put(self, texts):
        """Write these texts. Remove the files whose text is None."""
        for path, mode in self.modes.items():
            if texts[path] is None:
                if os.path.lexists(path):
                    os.unlink(path)
            elif read(path) != texts[path]:
                write(path, texts[path], mode)

    def difference(self):
        """The differences for Ansible. Of a key, only the fact that it changes."""
        shown = []
        for path in self.changed:
            if path == self.config:
                shown.append(
                    {
                        "before_header": path,
                        "after_header": path,
                        "before": self.before[path] or "",
                        "after": self.wanted[path],
                    }
                )
            else:
                shown.append({"prepared": f"{path}: new key (not shown)\n"})
        return shown


class Deployment:
    """One run of the module."""

    def __init__(self, module):
        self.module, self.params = module, module.params
        self.optictl = Optictl(module)
        self.inputs = Inputs(module.params, self.optictl.etc)
        self.before = self.optictl.release
        self.upgrade = ["upgrade"] + ([self.params["version"]] if self.params["version"] else [])
        self.options = []
        for name in ("wheelhouse", "python"):
            if self.params[name]:
                self.options += [f"--{name}", self.params[name]]
        self.python = ["--python", self.params["python"]] if self.params["python"] else []
        self.force = ["--force"] if self.params["force"] else []
        # the plan comes before this module writes the keys
        self.secrets_come = ["--secrets-come"] if self.inputs.changed else []

    def trial(self):
        """The option for the wanted configuration, which is not yet written to its path."""
        if self.inputs.config not in self.inputs.changed:
            return []
        handle, path = tempfile.mkstemp(suffix=".yaml", dir=self.module.tmpdir)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(self.inputs.wanted[self.inputs.config])
        return ["--config", path]

    def plan(self):
        """The changes that optictl plans, with the wanted configuration."""
        trial = self.trial()
        answer = self.optictl.run(
            *self.upgrade, "--dry-run", *self.python, *self.secrets_come, *trial
        )
        if answer.rc and trial and answer.error.get("problems"):
            # name the keys only: the temporary file is already gone
            words = "; ".join(
                f"{one['path']}: {one['message']}" for one in answer.error["problems"]
            )
            self.fail(
                answer,
                msg=f"configuration: {words}",
                remedy="edit it; optictl config schema prints all keys and values",
            )
        if answer.rc:
            self.fail(answer)
        # the temporary file is not part of the deployment
        planned = [one for one in answer.results if not (trial and one["target"] == trial[1])]
        edited = [one["target"] for one in planned if one.get("edited")]
        if edited and not self.params["force"]:
            remedy = (
                "use force to overwrite it (a backup is kept), "
                "or put your changes into drop-ins (*.d/*.conf)"
            )
            self.fail(
                answer,
                msg=f"{', '.join(edited)}: has local changes",
                remedy=remedy,
                rolled_back=False,
            )
        return planned

    def fail(self, answer, **more):
        self.optictl.fail(
            answer, before=self.before or "", release=self.optictl.release or "", **more
        )

    def built(self):
        """state=built."""
        build = bool(targets(self.plan(), BUILD_RELEASE))
        if build and not self.module.check_mode:
            answer = self.optictl.run(
                *self.upgrade,
                "--build-only",
                "--yes",
                *self.options,
                *self.secrets_come,
                *self.trial(),
            )
            if answer.rc:
                self.fail(answer, rolled_back=False)
        self.end(build, ["build"] if build else [])

    def present(self):
        """state=present."""
        planned = self.plan()
        changed = bool(planned or self.inputs.changed)
        actions = step_names(planned)
        actions += [f"write {path}" for path in self.inputs.changed]
        diff = self.inputs.difference() + difference(planned)
        if self.module.check_mode:
            self.end(changed, actions, diff)
        # checks that fail already do not count against the change
        known = (
            set(self.check().failures)
            if changed and self.before and not self.params["root"]
            else set()
        )
        tested = []
        if changed:
            self.inputs.put(self.inputs.wanted)
            if self.before is None:
                self.optictl.run("init")  # creates a missing proxy key; overwrites nothing
            answer = self.optictl.run(*self.upgrade, "--yes", *self.options, *self.force)
            if answer.rc:
                self.go_back(answer)
            tested = [one["id"] for one in answer.results]
        answer = self.check()
        if set(answer.failures) - known and changed:
            self.go_back(answer)
        if answer.rc:
            self.fail(answer, rolled_back=False)
        if tested and self.before is None and self.params["smoke"] and not self.params["root"]:
            # a trial of the release has tested every strategy, but the service has not run one yet
            smoke = self.optictl.run("smoke", tested[0])
            if smoke.rc:
                self.fail(smoke, rolled_back=False)
        self.end(changed, actions, diff, answer.results)

    def check(self):
        """Run all checks. Below a root no service runs; then complete the installation instead."""
        if self.params["root"]:
            return self.optictl.run("install", "--yes", "--no-smoke", *self.force)
        return self.optictl.run("check")

    def go_back(self, answer):
        """Restore the previous release, configuration and keys. End the module with an error."""
        if self.before is None:
            self.fail(answer, rolled_back=False)
        if answer.rc == ROLLED_BACK and not self.inputs.changed:
            self.fail(answer, rolled_back=True)
        self.inputs.put(self.inputs.before)
        again = self.optictl.run(
            "install",
            "--yes",
            "--no-smoke",
            *self.options,
            *self.force,
            program=self.params["going_back_program"],
        )
        whole = not again.error and self.optictl.release == self.before
        more = {} if whole else {"msg": f"{answer.words}; the rollback failed too: {again.words}"}
        self.fail(answer, rolled_back=whole, **more)

    def absent(self):
        """state=absent."""
        purge = ["--purge"] if self.params["purge"] else []
        planned = (
            self.optictl.run("uninstall", "--dry-run", *purge).results
            if self.optictl.is_there
            else []
        )
        if planned and not self.module.check_mode:
            answer = self.optictl.run("uninstall", "--yes", *purge, *self.force)
            if answer.rc:
                self.fail(answer)
        self.end(
            bool(planned),
            step_names(planned),
            difference(planned),
        )

    def end(self, changed, actions, diff=(), results=()):
        self.module.exit_json(
            changed=changed,
            actions=actions,
            diff=list(diff),
            results=list(results),
            before=self.before or "",
            release=self.optictl.release or "",
        )


def main():
    module = AnsibleModule(
        argument_spec=dict(
            ARGUMENTS,
            state={"type": "str", "choices": ["present", "built", "absent"], "default": "present"},
            configuration={"type": "str"},
            version={"type": "str"},
            upstream_key={"type": "str", "no_log": True},
            proxy_key={"type": "str", "no_log": True},
            wheelhouse={"type": "path"},
            python={"type": "path"},
            going_back_program={"type": "path"},
            smoke={"type": "bool", "default": True},
            force={"type": "bool", "default": False},
            purge={"type": "bool", "default": False},
        ),
        mutually_exclusive=[("configuration", "version")],
        supports_check_mode=True,
    )
    for name in ("upstream_key", "proxy_key"):
        if module.params[name] is not None and not re.fullmatch(r"\S+", module.params[name]):
            module.fail_json(msg=f"{name} must be one word, without blanks")
    deployment = Deployment(module)
    if not deployment.optictl.is_there and module.params["state"] != "absent":
        if module.check_mode:
            deployment.end(True, ["install the deployment"])
        module.fail_json(
            msg=f"there is no optictl at {module.params['program']}",
            remedy="run optillm_program first",
        )
    getattr(deployment, module.params["state"])()


if __name__ == "__main__":
    main()
