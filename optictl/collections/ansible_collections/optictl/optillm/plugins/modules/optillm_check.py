#!/usr/bin/python
"""Check a deployment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: optillm_check
short_description: Run the checks of a deployment of OptiLLM
version_added: 0.1.0
description:
  - Runs C(optictl check), which changes nothing, and fails when a check fails.
author: optictl maintainers (@optictl)
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
  - optictl.optillm.deployment
options:
  only:
    description: Checks or families of checks. Default, all.
    type: list
    elements: str
    default: []
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
  platform: {platforms: posix}
"""

EXAMPLES = r"""
- name: Check the deployment
  optictl.optillm.optillm_check:
"""

RETURN = r"""
results:
  description: The results in the JSON output of C(optictl).
  returned: always
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.optictl.optillm.plugins.module_utils.optictl import ARGUMENTS, Optictl


def main():
    module = AnsibleModule(
        argument_spec=dict(ARGUMENTS, only={"type": "list", "elements": "str", "default": []}),
        supports_check_mode=True,
    )
    optictl = Optictl(module)
    optictl.need()
    results = optictl.good(
        "check", *[word for one in module.params["only"] for word in ("--only", one)]
    )
    module.exit_json(changed=False, results=results)


if __name__ == "__main__":
    main()
