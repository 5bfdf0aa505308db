#!/usr/bin/python
"""Back to the release of before."""

from __future__ import annotations

DOCUMENTATION = r"""
module: optillm_rollback
short_description: Go back to the release of OptiLLM that was in force before
version_added: 0.1.0
description:
  - Runs C(optictl rollback). The release is proven like a new one, which costs tokens. When that ends red, nothing changes.
author: optictl maintainers (@optictl)
extends_documentation_fragment: [ansible.builtin.action_common_attributes, optictl.optillm.deployment]
options:
  release:
    description:
      - The release to go back to, as C(optictl releases) names it. Nothing is done where it is in force, and the module fails
        where it is not the one before. By default the one that was in force before, whatever it is.
    type: str
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
  platform: {platforms: posix}
"""

EXAMPLES = r"""
- name: Back to the release of before
  optictl.optillm.optillm_rollback:
"""

RETURN = r"""
release:
  description: The release in force.
  returned: always
  type: str
before:
  description: The release that was in force before.
  returned: always
  type: str
results:
  description: The results of C(optictl), as its JSON has them.
  returned: always
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.optictl.optillm.plugins.module_utils.optictl import (
    ARGUMENTS,
    ROLLED_BACK,
    SWITCH_RELEASE,
    Optictl,
    difference,
    targets,
)


def main():
    module = AnsibleModule(
        argument_spec=dict(ARGUMENTS, release={"type": "str"}), supports_check_mode=True
    )
    optictl = Optictl(module)
    before = optictl.release or ""
    if not optictl.is_there or not before:
        module.fail_json(msg="no release is in force", remedy="install it first")
    wanted = module.params["release"]
    if wanted == before:
        module.exit_json(changed=False, release=before, before=before, results=[])
    plan = optictl.run("rollback", "--dry-run")
    if plan.rc:
        optictl.fail(plan, release=before, before=before)
    target = next(iter(targets(plan.results, SWITCH_RELEASE)), "")
    if wanted and wanted != target:
        module.fail_json(
            msg=f"the release before is {target}, not {wanted}", release=before, before=before
        )
    if module.check_mode:
        module.exit_json(
            changed=True, release=before, before=before, results=[], diff=difference(plan.results)
        )
    answer = optictl.run("rollback", "--yes")
    if answer.rc:
        optictl.fail(
            answer, release=optictl.release, before=before, rolled_back=answer.rc == ROLLED_BACK
        )
    module.exit_json(
        changed=True,
        release=optictl.release,
        before=before,
        results=answer.results,
        diff=difference(plan.results),
    )


if __name__ == "__main__":
    main()
