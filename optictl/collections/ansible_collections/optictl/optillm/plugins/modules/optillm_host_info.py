#!/usr/bin/python
"""Facts about a host for a deployment of OptiLLM."""

from __future__ import annotations

DOCUMENTATION = r"""
module: optillm_host_info
short_description: Report whether a host can have a deployment of OptiLLM
version_added: 0.1.0
description:
  - Reports the interpreters, the C library, systemd and the existing deployment. The host needs
    only the Python that Ansible uses. The module changes nothing.
author: optictl maintainers (@optictl)
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
options:
  name:
    description: The name of the deployment on the host.
    type: str
    default: optillm-proxy
  root:
    description: The deployment is completely below this directory. It needs neither systemd nor
      root.
    type: path
  python:
    description: The Python interpreter to use. Default, the newest supported one.
    type: path
  port:
    description: The port of the deployment.
    type: int
    default: 4020
  force:
    description: Allow to replace a unit of the same name that C(optictl) did not write.
    type: bool
    default: false
  fail:
    description: Fail when the host cannot have a deployment.
    type: bool
    default: true
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
  platform: {platforms: posix}
"""

EXAMPLES = r"""
- name: Read the facts of the host
  optictl.optillm.optillm_host_info:
  register: host
"""

RETURN = r"""
problems:
  description: The reasons why the host cannot have a deployment, each with its fix.
  returned: always
  type: list
  elements: str
architecture:
  description: The machine's architecture.
  returned: always
  type: str
  sample: x86_64
glibc:
  description: The version of the C library.
  returned: always
  type: list
  elements: int
  sample: [2, 36]
python:
  description: The Python interpreter to use.
  returned: when there is one
  type: dict
  sample: {path: /usr/bin/python3.11, version: [3, 11, 2]}
distribution:
  description: The name of the distribution.
  returned: always
  type: str
  sample: Debian GNU/Linux 12 (bookworm)
systemd:
  description: The version of the running systemd. 0 when it does not run.
  returned: always
  type: int
release:
  description: The active release. "" when there is none.
  returned: always
  type: str
previous:
  description: The previous release. "" when there is none.
  returned: always
  type: str
version:
  description: The version of OptiLLM in the active release.
  returned: always
  type: str
configured:
  description: The version of OptiLLM in the host's C(optictl.yaml). "" when there is none.
  returned: always
  type: str
profile:
  description: The profile of the active release.
  returned: always
  type: str
hand_made:
  description: Units of the same name that C(optictl) did not write.
  returned: always
  type: list
  elements: str
"""

import glob
import json
import os
import platform
import re
import stat
import subprocess

from ansible.module_utils.basic import AnsibleModule

OLDEST = (3, 10)
NEWEST = (3, 14)
SUPPORTED = "{0}.{1} to {2}.{3}".format(*(OLDEST + NEWEST))
ARCHITECTURES = ("x86_64", "aarch64")
PLACES = ("/usr/bin", "/usr/local/bin", "/opt/python/*/bin", "/opt/*/bin")
ASK = (
    "import json, os, sys, sysconfig;"
    "base = getattr(sys, '_base_executable', sys.executable);"
    "print(json.dumps([os.path.realpath(base), list(sys.version_info[:3]), "
    "sysconfig.get_path('stdlib'),"
    " sys.implementation.name]))"
)


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def closed(path):
    """The first part of a path that other users cannot enter or read, or ""."""
    real, part = os.path.realpath(path), "/"
    for word in [""] + real.strip("/").split("/"):
        part = os.path.join(part, word)
        try:
            mode = os.stat(part).st_mode
        except OSError:
            return part
        needed = stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH | stat.S_IXOTH
        if mode & needed != needed:
            return part
    return ""


def inspect(path):
    """What an interpreter reports about itself. None when it does not run."""
    try:
        said = subprocess.run(
            [path, "-I", "-c", ASK], capture_output=True, text=True, check=True, timeout=20
        )
        real, version, stdlib, implementation = json.loads(said.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return {
        "path": real,
        "version": version,
        "implementation": implementation,
        "closed": closed(real) or closed(stdlib),
    }


def interpreters(chosen):
    """The interpreters of the host without duplicates, or only the chosen one."""
    pattern = re.compile(r"python3(\.\d+)?$")
    names = (
        [chosen]
        if chosen
        else [
            p
            for place in PLACES
            for p in sorted(glob.glob(place + "/python3*"))
            if pattern.search(p)
        ]
    )
    found = [one for one in (inspect(name) for name in names) if one]
    return list({one["path"]: one for one in found}.values())


def judged(found, as_root):
    """The newest usable interpreter, and the reasons why the others are not usable."""
    fitting, passed = [], []
    for one in sorted(found, key=lambda one: one["version"], reverse=True):
        words = "{0} ({1})".format(one["path"], ".".join(map(str, one["version"])))
        if one["implementation"] != "cpython" or not OLDEST <= tuple(one["version"][:2]) <= NEWEST:
            passed.append(f"{words} is not CPython {SUPPORTED}")
        elif as_root and one["closed"]:
            passed.append(f"the service user cannot enter {one['closed']} of {words}")
        else:
            fitting.append(one)
    return (fitting[0] if fitting else None), passed


def glibc():
    try:
        words = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        return None
    match = re.search(r"(\d+)\.(\d+)", words)
    return [int(match.group(1)), int(match.group(2))] if match else None


def systemd():
    """The version of the systemd that is PID 1, or 0."""
    if not os.path.isdir("/run/systemd/system"):
        return 0
    try:
        said = subprocess.run(
            ["systemctl", "--version"], capture_output=True, text=True, check=True, timeout=20
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    match = re.search(r"\d+", said)
    return int(match.group()) if match else 0


def distribution():
    match = re.search(r'^PRETTY_NAME="?([^"\n]*)', read("/etc/os-release"), re.MULTILINE)
    return match.group(1) if match else ""


def listens(port):
    """Whether a program listens on this TCP port of the host."""
    wanted = f":{port:04X}"
    lines = (read("/proc/net/tcp") + read("/proc/net/tcp6")).splitlines()
    return any(
        fields[3:4] == ["0A"] and fields[1].endswith(wanted)
        for fields in map(str.split, lines)
        if len(fields) > 3
    )


class Deployed:
    """The existing deployment of this name on the host."""

    def __init__(self, name, root):
        base = root or "/"
        self.opt = os.path.join(base, "opt", name)
        units = [
            os.path.join(base, "etc/systemd/system", name + end) for end in (".service", ".socket")
        ]
        try:
            wrote = json.loads(read(os.path.join(self.opt, "manifest.json"))).get("files", {})
        except ValueError:
            wrote = {}
        self.hand_made = [path for path in units if os.path.exists(path) and path not in wrote]
        self.ours = bool(wrote)
        config = re.sub(r"#.*", "", read(os.path.join(base, "etc", name, "optictl.yaml")))
        version = re.search(r"""\bversion:\s*["']?(\d[\w.]*)""", config)
        self.configured = version.group(1) if version else ""

    def release(self, link):
        """The name and the record (release.json) of the release behind a link."""
        path = os.path.join(self.opt, link)
        try:
            record = json.loads(read(os.path.join(path, "release.json")))
        except ValueError:
            return "", {}
        return os.path.basename(os.path.realpath(path)), record


def host_facts(deployed):
    """The facts about the host and its deployment."""
    name, record = deployed.release("current")
    return {
        "architecture": platform.machine(),
        "glibc": glibc() or [],
        "distribution": distribution(),
        "systemd": systemd(),
        "hand_made": deployed.hand_made,
        "release": name,
        "version": record.get("optillm", ""),
        "profile": record.get("profile", ""),
        "configured": deployed.configured,
        "previous": deployed.release("previous")[0],
    }


def problems_of_wheels(facts):
    """Why the wheels of a release do not run on this host."""
    problems = []
    if facts["architecture"] not in ARCHITECTURES:
        problems.append(
            f"there are no wheels for {facts['architecture']}: use a host with x86_64 or aarch64"
        )
    if not facts["glibc"]:
        problems.append("there are no wheels for this C library: use a host with glibc")
    return problems


def problems_of_system(params, facts, deployed, as_root):
    """Why a deployment of the whole host cannot be installed."""
    problems = []
    if not as_root:
        problems.append(
            "the module does not run as root: log in as root, or set ansible_become: true"
        )
    if not facts["systemd"]:
        problems.append("systemd does not run: use a host with systemd, or set optillm_proxy_root")
    if deployed.hand_made and not params["force"]:
        problems.append(
            f"{', '.join(deployed.hand_made)} was not written by optictl: "
            "remove it, or set optillm_proxy_force to replace it"
        )
    if not deployed.ours and not deployed.hand_made and listens(params["port"]):
        problems.append(
            f"another program listens on port {params['port']}: stop it, or set listen.port"
        )
    return problems


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "default": "optillm-proxy"},
            "root": {"type": "path"},
            "python": {"type": "path"},
            "port": {"type": "int", "default": 4020},
            "force": {"type": "bool", "default": False},
            "fail": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    as_root = os.geteuid() == 0
    deployed = Deployed(params["name"], params["root"])
    python, passed = judged(interpreters(params["python"]), as_root)
    facts = host_facts(deployed)
    problems = problems_of_wheels(facts)
    if python is None:
        why = "; ".join(passed) or "none was found"
        # apt would install the same unusable version again
        way = "install one below /opt/python" if passed else "apt-get install python3"
        problems.append(f"no usable Python {SUPPORTED} ({why}): {way}, or set optillm_proxy_python")
    else:
        facts["python"] = {"path": python["path"], "version": python["version"]}
    if not params["root"]:
        problems += problems_of_system(params, facts, deployed, as_root)
    facts["problems"] = problems
    if problems and params["fail"]:
        module.fail_json(msg="; ".join(problems), **facts)
    module.exit_json(changed=False, **facts)


if __name__ == "__main__":
    main()
