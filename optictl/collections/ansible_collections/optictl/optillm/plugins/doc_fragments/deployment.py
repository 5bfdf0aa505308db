"""The options that the modules share."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  program:
    description: The C(optictl) program on the host.
    type: path
    default: /opt/optictl/current/bin/optictl
  name:
    description: The name of the deployment on the host. Its units, directories and user have this
      name.
    type: str
    default: optillm-proxy
  root:
    description: The deployment is completely below this directory, without systemd.
    type: path
  patience:
    description: Seconds to wait for another C(optictl) that changes the same deployment.
    type: int
    default: 900
"""
