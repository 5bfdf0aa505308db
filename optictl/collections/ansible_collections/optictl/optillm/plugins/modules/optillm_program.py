#!/usr/bin/python
"""The program optictl on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: optillm_program
short_description: Install optictl on a host from local wheels
version_added: 0.1.0
description:
  - Creates a virtual environment with C(optictl), offline, every hash checked, next to older ones.
    The host needs no pip.
author: optictl maintainers (@optictl)
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
options:
  id:
    description: The identity of this C(optictl), its version and a hash of its requirements.
    type: str
    required: true
  requirements:
    description: The requirements file in O(wheels), with hashes.
    type: str
    required: true
  wheels:
    description: The directory on the host with the wheels.
    type: path
    default: /opt/optictl/wheels
  path:
    description: The directory for installations on the host.
    type: path
    default: /opt/optictl
  python:
    description: The Python interpreter on the host.
    type: path
    required: true
  current:
    description: Also activate it as C(current) and O(command), and remove the others.
    type: bool
    default: false
  command:
    description: A link to the active program. Another file with this name is not replaced.
    type: path
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
  platform: {platforms: posix}
"""

EXAMPLES = r"""
- name: Install optictl
  optictl.optillm.optillm_program:
    id: "{{ wheelhouse.program }}"
    requirements: "{{ wheelhouse.requirements }}"
    python: /usr/bin/python3
    current: true
"""

RETURN = r"""
program:
  description: The path of this C(optictl).
  returned: always
  type: str
  sample: /opt/optictl/versions/0.1.0-0123456789ab/bin/optictl
in_force:
  description: The path of the active C(optictl) before this module ran. "" when there was none.
  returned: always
  type: str
"""

import glob
import os
import re
import shutil
import tempfile
import zipfile

from ansible.module_utils.basic import AnsibleModule


def unpack_uv(module, directory):
    """Unpack the uv that the requirements name. Returns its path."""
    with open(
        os.path.join(module.params["wheels"], module.params["requirements"]), encoding="utf-8"
    ) as file:
        pin = re.search(r"^uv==(\S+)", file.read(), re.MULTILINE)
    wheels = (
        glob.glob(os.path.join(module.params["wheels"], f"uv-{pin.group(1)}-*.whl")) if pin else []
    )
    if not wheels:
        module.fail_json(
            msg=f"{module.params['wheels']} has no wheel of uv", remedy="run optillm_wheels first"
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".data/scripts/uv"))
        target = os.path.join(directory, "uv")
        with wheel.open(name) as source, open(target, "wb") as file:
            shutil.copyfileobj(source, file)
    os.chmod(target, 0o755)
    return target


OFFLINE = {
    "UV_NO_CACHE": "1",
    "UV_OFFLINE": "1",
    "UV_NO_CONFIG": "1",
    "UV_PYTHON_DOWNLOADS": "never",
}


def commands_of_uv(uv, params, place):
    """The commands that make the virtual environment from the wheels, every hash checked."""
    python = os.path.join(place, "bin/python")
    requirements = os.path.join(params["wheels"], params["requirements"])
    return (
        [uv, "venv", "--quiet", "--no-project", "--python", params["python"], place],
        [
            *(uv, "pip", "install", "--quiet", "--python", python),
            *("--no-deps", "--require-hashes", "--no-build"),
            *("--no-index", "--find-links", params["wheels"]),
            *("--link-mode", "copy", "--compile-bytecode"),
            *("--requirements", requirements),
        ],
    )


def build(module, place):
    """Create the virtual environment. The file `complete` comes last and marks it as complete."""
    params = module.params
    shutil.rmtree(place, ignore_errors=True)
    os.makedirs(os.path.dirname(place), mode=0o755, exist_ok=True)
    scratch = tempfile.mkdtemp(prefix=".build-", dir=params["path"])
    try:
        uv = unpack_uv(module, scratch)
        for command in commands_of_uv(uv, params, place):
            rc, out, err = module.run_command(command, environ_update=OFFLINE, cwd="/")
            if rc:
                shutil.rmtree(place, ignore_errors=True)
                module.fail_json(msg=f"installing optictl failed: {(err or out).strip()[-1000:]}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    with open(os.path.join(place, "complete"), "w", encoding="utf-8") as file:
        os.fsync(file.fileno())


def point(link, target):
    """Replace a symbolic link atomically."""
    new = link + ".new"
    if os.path.lexists(new):
        os.unlink(new)
    os.makedirs(os.path.dirname(link), mode=0o755, exist_ok=True)
    os.symlink(target, new)
    os.rename(new, link)


def target_of(link):
    return os.readlink(link) if os.path.islink(link) else None


def runs(module, place):
    """Whether the virtual environment is complete and its optictl starts."""
    if not os.path.exists(os.path.join(place, "complete")):
        return False
    return not module.run_command([os.path.join(place, "bin/optictl"), "--version"])[0]


def main():
    module = AnsibleModule(
        argument_spec={
            "id": {"type": "str", "required": True},
            "requirements": {"type": "str", "required": True},
            "wheels": {"type": "path", "default": "/opt/optictl/wheels"},
            "path": {"type": "path", "default": "/opt/optictl"},
            "python": {"type": "path", "required": True},
            "current": {"type": "bool", "default": False},
            "command": {"type": "path"},
        },
        supports_check_mode=True,
    )
    params = module.params
    versions = os.path.join(params["path"], "versions")
    place, current = os.path.join(versions, params["id"]), os.path.join(params["path"], "current")
    others, links = [], []
    if params["current"]:
        links = [(current, os.path.join("versions", params["id"]))]
        command = params["command"]
        if command and (not os.path.lexists(command) or target_of(command)):
            links.append((command, os.path.join(current, "bin/optictl")))
        others = [path for path in glob.glob(os.path.join(versions, "*")) if path != place]
    links = [(link, target) for link, target in links if target_of(link) != target]
    before = target_of(current)
    in_force = os.path.join(params["path"], before, "bin/optictl") if before else ""
    is_built = runs(module, place)
    if not module.check_mode:
        if not is_built:
            build(module, place)
        for link, target in links:
            point(link, target)
        for path in others:
            shutil.rmtree(path)
    module.exit_json(
        changed=bool(not is_built or links or others),
        program=os.path.join(place, "bin/optictl"),
        in_force=in_force if in_force and os.path.exists(in_force) else "",
    )


if __name__ == "__main__":
    main()
