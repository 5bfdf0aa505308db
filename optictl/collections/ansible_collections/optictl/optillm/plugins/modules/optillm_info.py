#!/usr/bin/python
"""The state of a deployment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: optillm_info
short_description: Report the state of a deployment of OptiLLM
version_added: 0.1.0
description:
  - Reports release, health, restarts, and what C(optictl install) would change. A bad state does
    not fail the module.
author: optictl maintainers (@optictl)
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
  - optictl.optillm.deployment
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
  platform: {platforms: posix}
"""

EXAMPLES = r"""
- name: Read the state
  optictl.optillm.optillm_info:
  register: optillm
"""

RETURN = r"""
release:
  description: The active release. "" when there is none.
  returned: always
  type: str
version:
  description: The version of OptiLLM in the active release.
  returned: always
  type: str
state:
  description: The state of the service, as systemd names it.
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
  description: How often systemd restarted the service.
  returned: always
  type: int
problem:
  description: The first problem, or "".
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
    info = {
        "release": optictl.release or "",
        "version": "",
        "state": "",
        "tiers": {},
        "drift": [],
        "restarts": 0,
    }
    if not optictl.is_there:
        module.exit_json(changed=False, problem="optictl is not installed", **info)
    status, releases, plan = (
        optictl.run("status"),
        optictl.run("releases"),
        optictl.run("install", "--dry-run"),
    )
    data = status.results[0]["data"] if status.results else {}
    info.update({name: data[name] for name in ("state", "tiers", "restarts") if name in data})
    inside = [one["data"] for one in releases.results if one["id"] == optictl.release]
    info["version"] = inside[0]["version"] if inside else ""
    info["drift"] = step_names(plan.results)
    problem = data.get("problem", "") if status.results else status.words
    if plan.rc:
        problem = plan.words
    module.exit_json(changed=False, problem=problem, **info)


if __name__ == "__main__":
    main()
