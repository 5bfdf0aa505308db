#!/usr/bin/python
"""Return to the previous release."""

from __future__ import annotations

DOCUMENTATION = r"""
module: optillm_rollback
short_description: Return to the previous release of OptiLLM
version_added: 0.1.0
description:
  - Runs C(optictl rollback). It tests the release like a new one, which costs tokens. When a test
    fails, nothing changes.
author: optictl maintainers (@optictl)
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
  - optictl.optillm.deployment
options:
  release:
    description:
      - The release to return to, as C(optictl releases) names it. The module does nothing when it
        is active, and fails when it is not the previous release. Default, the previous release.
    type: str
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
  platform: {platforms: posix}
"""

EXAMPLES = r"""
- name: Return to the previous release
  optictl.optillm.optillm_rollback:
"""

RETURN = r"""
release:
  description: The active release.
  returned: always
  type: str
before:
  description: The release that was active before.
  returned: always
  type: str
results:
  description: The results in the JSON output of C(optictl).
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
        module.fail_json(msg="there is no active release", remedy="install the deployment first")
    requested = module.params["release"]
    if requested == before:
        module.exit_json(changed=False, release=before, before=before, results=[])
    plan = optictl.run("rollback", "--dry-run")
    if plan.rc:
        optictl.fail(plan, release=before, before=before)
    target = next(iter(targets(plan.results, SWITCH_RELEASE)), "")
    if requested and requested != target:
        module.fail_json(
            msg=f"the previous release is {target}, not {requested}",
            release=before,
            before=before,
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
