#!/usr/bin/python
"""What is deployed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: optillm_info
short_description: Tell what a deployment of OptiLLM is and how it does
version_added: 0.1.0
description:
  - Release, health, restarts, and what C(optictl install) would change. Never fails because of what it finds.
author: optictl maintainers (@optictl)
extends_documentation_fragment: [ansible.builtin.action_common_attributes, optictl.optillm.deployment]
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
  platform: {platforms: posix}
"""

EXAMPLES = r"""
- name: How does it do?
  optictl.optillm.optillm_info:
  register: optillm
"""

RETURN = r"""
release:
  description: The release in force; "" where there is none.
  returned: always
  type: str
version:
  description: The version of OptiLLM in force.
  returned: always
  type: str
state:
  description: The service's state, in systemd's words.
  returned: always
  type: str
tiers:
  description: The tiers of health, each with its status.
  returned: always
  type: dict
drift:
  description: What C(optictl install) would change.
  returned: always
  type: list
  elements: str
restarts:
  description: How often systemd had to start the service anew.
  returned: always
  type: int
problem:
  description: The first thing that is wrong, if any.
  returned: always
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.optictl.optillm.plugins.module_utils.optictl import (
    ARGUMENTS,
    Optictl,
    step_names,
)


def main():
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    optictl = Optictl(module)
    told = {
        "release": optictl.release or "",
        "version": "",
        "state": "",
        "tiers": {},
        "drift": [],
        "restarts": 0,
    }
    if not optictl.is_there:
        module.exit_json(changed=False, problem="optictl is not installed", **told)
    status, releases, plan = (
        optictl.run("status"),
        optictl.run("releases"),
        optictl.run("install", "--dry-run"),
    )
    data = status.results[0]["data"] if status.results else {}
    told.update({name: data[name] for name in ("state", "tiers", "restarts") if name in data})
    inside = [one["data"] for one in releases.results if one["id"] == optictl.release]
    told["version"] = inside[0]["version"] if inside else ""
    told["drift"] = step_names(plan.results)
    problem = data.get("problem", "") if status.results else status.words
    if plan.rc:
        problem = plan.words
    module.exit_json(changed=False, problem=problem, **told)


if __name__ == "__main__":
    main()
