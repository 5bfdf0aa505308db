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
    description: Which deployment of the host. Its units, directories and user are called so.
    type: str
    default: optillm-proxy
  root:
    description: A deployment wholly below this directory, without systemd, instead of the system's.
    type: path
  patience:
    description: Seconds to wait for another C(optictl) that is at work on the same deployment.
    type: int
    default: 900
"""
