#!/usr/bin/python
"""The wheels of a deployment on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: optillm_wheels
short_description: Bring a wheelhouse from the controller to a host
version_added: 0.1.0
description:
  - Sends the files that the host does not have, each known by its SHA-256, and checks every one there. What arrived before
    an interruption is not sent again.
  - Has an action plugin of the same name, which sends the files through Ansible's connection.
author: optictl maintainers (@optictl)
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
options:
  path:
    description: The directory on the host.
    type: path
    default: /opt/optictl/wheels
  directory:
    description: The directory on the controller. Read by the action plugin.
    type: path
  files:
    description: The files that the host needs.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The file's name.
        type: str
        required: true
      sha256:
        description: Its digest in hex.
        type: str
        required: true
      size:
        description: Its size in bytes.
        type: int
        required: true
  incoming:
    description: Where files have just arrived on the host. Set by the action plugin.
    type: path
  prune:
    description: Whether other files in O(path) are removed, but those of the wheelhouse of before, which a rollback needs.
    type: bool
    default: false
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
  platform: {platforms: posix}
"""

EXAMPLES = r"""
- name: Send the wheels
  optictl.optillm.optillm_wheels:
    directory: "{{ wheelhouse.directory }}"
    files: "{{ wheelhouse.files }}"
"""

RETURN = r"""
missing:
  description: The files that the host does not have.
  returned: always
  type: list
  elements: str
sent:
  description: How many files were sent.
  returned: always
  type: int
sent_bytes:
  description: How many bytes were sent.
  returned: always
  type: int
"""

import hashlib
import json
import os

from ansible.module_utils.basic import AnsibleModule

#: Beside the wheels: the names of the wheelhouse that was wanted last, and of the one before.
LISTS = "wheelhouses.json"


def digest(path):
    """SHA-256 in hex, or "" where there is no file."""
    found = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                found.update(block)
    except OSError:
        return ""
    return found.hexdigest()


def take_in(module, incoming, wanted, path):
    """Move what has arrived whole to its place; returns whether anything was."""
    moved = False
    for name in sorted(os.listdir(incoming)):
        source = os.path.join(incoming, name)
        if name not in wanted:
            continue
        if digest(source) != wanted[name]:
            module.fail_json(
                msg=f"{name} did not arrive whole",
                remedy="run it again: only what is missing is sent",
            )
        os.makedirs(path, mode=0o755, exist_ok=True)
        os.chmod(source, 0o644)
        module.atomic_move(source, os.path.join(path, name))
        moved = True
    return moved


def lists(path):
    """The lists of names; none where none were written."""
    try:
        with open(os.path.join(path, LISTS), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return []


def prune(path, wanted, check_mode):
    """Remove what neither this wheelhouse nor the one before has; returns whether there is any such file."""
    known = [wanted] + [one for one in lists(path) if one != wanted][:1]
    # of optictl itself there may be one only: uv would take the other one of the same version
    kept = {name for one in known[1:] for name in one if not name.startswith("optictl-")}
    others = sorted(set(os.listdir(path)) - kept - set(wanted) - {LISTS})
    if not check_mode:
        for name in others:
            os.unlink(os.path.join(path, name))
        with open(os.path.join(path, LISTS + ".new"), "w", encoding="utf-8") as file:
            json.dump(known, file)
        os.rename(os.path.join(path, LISTS + ".new"), os.path.join(path, LISTS))
    return bool(others)


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/opt/optictl/wheels"},
            "directory": {"type": "path"},
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "sha256": {"type": "str", "required": True},
                    "size": {"type": "int", "required": True},
                },
            },
            "incoming": {"type": "path"},
            "prune": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    path = module.params["path"]
    wanted = {one["name"]: one["sha256"] for one in module.params["files"]}
    changed = False
    if module.params["incoming"]:
        changed = take_in(module, module.params["incoming"], wanted, path)
    missing = [name for name in sorted(wanted) if digest(os.path.join(path, name)) != wanted[name]]
    if module.params["prune"] and not missing:
        changed = prune(path, sorted(wanted), module.check_mode) or changed
    module.exit_json(changed=changed, missing=missing, sent=0, sent_bytes=0)


if __name__ == "__main__":
    main()
