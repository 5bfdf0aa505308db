"""Send the wheels that a host does not have, in parcels. An interrupted run resumes there."""

from __future__ import annotations

import os

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

#: A parcel is checked and put in place before the next one is sent.
PARCEL_BYTES = 32 * 2**20


def parcels(files):
    """The files in lists of at most PARCEL_BYTES. A larger file is alone in its list."""
    found, size = [], 0
    for one in files:
        if not found or size + one["size"] > PARCEL_BYTES:
            found.append([])
            size = 0
        found[-1].append(one)
        size += one["size"]
    return found


class ActionModule(ActionBase):
    """Ask the host which files are missing, send them, and verify them on the host."""

    _requires_connection = True
    TRANSFERS_FILES = True

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        arguments = self._task.args
        result = self._ask(arguments, task_vars)
        if result.get("failed") or self._task.check_mode:
            result["changed"] = bool(result.get("changed") or result.get("missing"))
            return result
        missing = [one for one in arguments["files"] if one["name"] in result["missing"]]
        changed = result["changed"]
        for parcel in parcels(missing):
            incoming = self._make_tmp_path()
            for one in parcel:
                source = os.path.join(arguments["directory"], one["name"])
                if not os.path.isfile(source):
                    raise AnsibleActionFail(f"{source} does not exist on the controller")
                self._transfer_file(
                    source, self._connection._shell.join_path(incoming, one["name"])
                )
            result = self._ask({**arguments, "incoming": incoming}, task_vars)
            self._remove_tmp_path(incoming)
            if result.get("failed"):
                return result
            changed = True
        if result["missing"]:
            raise AnsibleActionFail(f"did not arrive: {', '.join(result['missing'])}")
        return {
            **result,
            "changed": changed,
            "sent": len(missing),
            "sent_bytes": sum(one["size"] for one in missing),
        }

    def _ask(self, arguments, task_vars):
        return self._execute_module(
            "optictl.optillm.optillm_wheels", module_args=arguments, task_vars=task_vars
        )
