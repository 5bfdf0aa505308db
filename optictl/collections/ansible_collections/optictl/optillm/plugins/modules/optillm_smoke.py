#!/usr/bin/python
"""Test a deployment with real requests."""

from __future__ import annotations

DOCUMENTATION = r"""
module: optillm_smoke
short_description: Send real requests to OptiLLM and verify that the strategies ran
version_added: 0.1.0
description:
  - Runs C(optictl smoke), which costs tokens, and fails when a strategy did not run or had no
    effect. Skipped in check mode.
author: optictl maintainers (@optictl)
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
  - optictl.optillm.deployment
options:
  models:
    description: Strategy models, for example V(moa-jerry-xl). Default, every enabled strategy on
      every base model.
    type: list
    elements: str
    default: []
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
  platform: {platforms: posix}
"""

EXAMPLES = r"""
- name: Test that the strategy runs
  optictl.optillm.optillm_smoke:
    models: [moa-jerry-xl]
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
