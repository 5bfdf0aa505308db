#!/usr/bin/python
"""Wheels on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: optillm_wheels
short_description: Copy a wheelhouse from the controller to a host
version_added: 0.1.0
description:
  - Sends the files that the host does not have, and verifies the SHA-256 of each on the host. After
    an interruption, it sends only the missing files.
  - An action plugin of the same name sends the files through Ansible's connection.
author: optictl maintainers (@optictl)
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
options:
  path:
    description: The directory on the host.
    type: path
    default: /opt/optictl/wheels
  directory:
    description: The directory on the controller. The action plugin reads it.
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
    description: The directory on the host with new files. The action plugin sets it.
    type: path
  prune:
    description: Remove other files in O(path), except those of the previous wheelhouse, which a
      rollback needs.
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
  description: The number of files sent.
  returned: always
  type: int
sent_bytes:
  description: The number of bytes sent.
  returned: always
  type: int
"""

import hashlib
import json
import os

from ansible.module_utils.basic import AnsibleModule

#: A file next to the wheels: the file names of the last wheelhouse, and of the previous one.
LISTS = "wheelhouses.json"


def digest(path):
    """The SHA-256 of a file in hex. "" when there is no file."""
    checksum = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                checksum.update(block)
    except OSError:
        return ""
    return checksum.hexdigest()


def take_in(module, incoming, wanted, path):
    """Move complete files to their directory. Returns whether there were any."""
    moved = False
    for name in sorted(os.listdir(incoming)):
        source = os.path.join(incoming, name)
        if name not in wanted:
            continue
        if digest(source) != wanted[name]:
            module.fail_json(
                msg=f"{name} was damaged on the way",
                remedy="run it again: it sends only the missing files",
            )
        os.makedirs(path, mode=0o755, exist_ok=True)
        os.chmod(source, 0o644)
        module.atomic_move(source, os.path.join(path, name))
        moved = True
    return moved


def lists(path):
    """The lists of file names. Empty when the file does not exist or is not valid."""
    try:
        with open(os.path.join(path, LISTS), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return []


def prune(path, wanted, check_mode):
    """Remove files that are not in this wheelhouse or the previous one.

    Returns whether any exist.
    """
    known = [wanted] + [one for one in lists(path) if one != wanted][:1]
    # keep one wheel of optictl only: uv might install the other one of the same version
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
