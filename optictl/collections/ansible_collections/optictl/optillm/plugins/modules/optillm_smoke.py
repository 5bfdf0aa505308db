#!/usr/bin/python
"""Prove a deployment by real requests."""

from __future__ import annotations

DOCUMENTATION = r"""
module: optillm_smoke
short_description: Send real requests to OptiLLM and prove what they caused
version_added: 0.1.0
description:
  - Runs C(optictl smoke), which costs tokens, and fails where a strategy did not run as it must. Skipped in check mode.
author: optictl maintainers (@optictl)
extends_documentation_fragment: [ansible.builtin.action_common_attributes, optictl.optillm.deployment]
options:
  models:
    description: Strategy models, such as V(moa-jerry-xl). By default every enabled strategy of every base model.
    type: list
    elements: str
    default: []
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
  platform: {platforms: posix}
"""

EXAMPLES = r"""
- name: Does the strategy really run?
  optictl.optillm.optillm_smoke:
    models: [moa-jerry-xl]
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
        argument_spec=dict(ARGUMENTS, models={"type": "list", "elements": "str", "default": []}),
        supports_check_mode=True,
    )
    optictl = Optictl(module)
    optictl.need()
    if module.check_mode:
        module.exit_json(changed=False, results=[], skipped=True)
    module.exit_json(
        changed=False, results=optictl.good("smoke", *(module.params["models"] or ["--all"]))
    )


if __name__ == "__main__":
    main()
