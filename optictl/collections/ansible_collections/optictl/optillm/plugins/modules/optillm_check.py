#!/usr/bin/python
"""Judge a deployment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: optillm_check
short_description: Judge every invariant of a deployment of OptiLLM
version_added: 0.1.0
description:
  - Runs C(optictl check), which reads and never writes, and fails where it is red.
author: optictl maintainers (@optictl)
extends_documentation_fragment: [ansible.builtin.action_common_attributes, optictl.optillm.deployment]
options:
  only:
    description: One check or one family each; by default all.
    type: list
    elements: str
    default: []
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
  platform: {platforms: posix}
"""

EXAMPLES = r"""
- name: Is it as it must be?
  optictl.optillm.optillm_check:
"""

RETURN = r"""
results:
  description: The results of C(optictl), as its JSON has them.
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
