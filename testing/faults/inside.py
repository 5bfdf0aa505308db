"""Faults of what the service is given: its environment, its keys, its files, its door."""

from __future__ import annotations

from optictl.deployment import render
from optictl.guard import invariants
from testing import litellm_proxy
from testing.faults.bench import HOME, LITELLM, OPT, SOCKET, UNIT, Bench
from testing.faults.fault import (
    CURRENT,
    PROVIDERS,
    RESTART,
    SERVICE_FILE,
    SOCKET_FILE,
    Fault,
    Step,
    drop_in,
    put,
    sh,
    until,
)
from testing.host import ETC
from testing.support import PROXY_KEY


def _environment() -> list[Fault]:
    names = [*invariants.FORBIDDEN, "OPTILLM_N", "https_proxy"]
    in_file = [
        Fault(
            "environment",
            f"{n} in the env file",
            "env.forbidden",
            sh(f"echo '{n}=http://127.0.0.1:9' >> {ETC}/env"),
        )
        for n in names
    ]
    of_manager = [
        Fault(
            "environment",
            f"systemctl set-environment {n}",
            "env.forbidden",
            sh(f"systemctl set-environment {n}=http://127.0.0.1:9"),
        )
        for n in names
    ]
    in_drop_in = [
        Fault(
            "environment",
            f"{n} in a drop-in",
            "unit.no-weakening-dropin",
            drop_in(f"Environment={n}=x"),
        )
        for n in ("OPTILLM_API_KEY", "HTTPS_PROXY")
    ]
    return [*in_file, *of_manager, *in_drop_in]


def _unreadable() -> list[Fault]:
    """Env files that systemd does not read as they are meant."""
    line = f"OPENAI_API_KEY={litellm_proxy.MASTER_KEY}\\n"
    ways = {
        "an export line in the env file": f"printf 'export {line}'",
        "an export of HTTP_PROXY in the env file": f"printf '{line}export HTTP_PROXY=x\\n'",
        "a byte order mark before the env file": f"printf '\\357\\273\\277{line}'",
        "the env file is UTF-16": f"printf '{line}' | iconv -t UTF-16",
        "the env file is Latin-1": f"printf '{line}GREETING=\\351t\\351\\n'",
        "a NUL byte in the env file": f"printf '{line}A=\\000\\n'",
        "a word alone in the env file": f"printf '{line}stray\\n'",
        "no name before = in the env file": f"printf '{line}A-B=1\\n'",
        "a comment of the env file ends with a backslash": f"printf '# key \\\\\\n{line}'",
    }
    return [
        Fault("environment", name, "env.readable", sh(f"{words} > {ETC}/env"))
        for name, words in ways.items()
    ] + [
        Fault(
            "environment",
            "restarted with an env file that the guard refuses",
            "env.readable",
            sh(f"printf 'export {line}' > {ETC}/env && {RESTART}; sleep 2"),
        ),
        Fault(
            "environment",
            "restarted with an env file that systemd refuses",
            "env.readable",
            sh(f"printf '{line}' | iconv -t UTF-16 > {ETC}/env && {RESTART}; sleep 2"),
        ),
    ]


def _live_variable(b: Bench) -> None:
    """Another variable in the place of PYTHONUNBUFFERED=1, in the memory of the running service."""
    code = (
        "import sys; pid = int(sys.argv[1]); "
        "fields = open(f'/proc/{pid}/stat').read().rpartition(')')[2].split();"
        "start, end = int(fields[47]), int(fields[48]); "
        "memory = open(f'/proc/{pid}/mem', 'r+b', 0); memory.seek(start);"
        "text = memory.read(end - start); at = text.index(b'PYTHONUNBUFFERED=1'); "
        "memory.seek(start + at);"
        "memory.write(b'OPTILLM_API_KEY=ab')"
    )
    b.machine.run("python3", "-c", code, b.worker)


ENVIRONMENT = [
    *_environment(),
    Fault("environment", "OPTILLM_API_KEY in the live process", "env.forbidden", _live_variable),
    Fault(
        "environment",
        "restarted with OPTILLM_N in the env file",
        "env.forbidden",
        sh(f"echo OPTILLM_N=3 >> {ETC}/env && {RESTART}; sleep 2"),
    ),
    *_unreadable(),
    Fault(
        "environment",
        "no OPENAI_API_KEY",
        "env.upstream-key",
        put(f"{ETC}/env", "OPENAI_API_KEY=\n"),
        outside=put(f"{ETC}/env", f"OPENAI_API_KEY={litellm_proxy.MASTER_KEY}\n"),
        says="write the line OPENAI_API_KEY=",
        typed="optictl restart",
    ),
    Fault(
        "environment",
        "no env file",
        "env.upstream-key",
        sh(f"rm {ETC}/env"),
        outside=put(f"{ETC}/env", f"OPENAI_API_KEY={litellm_proxy.MASTER_KEY}\n"),
        says="write the line OPENAI_API_KEY=",
        typed="optictl restart",
    ),
]


# binds

#: Listens on an address, on this machine only, and says that it does.
_LISTEN = (
    "import os, socket, sys, time; host, port = sys.argv[1], int(sys.argv[2]);"
    "s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET);"
    "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); "
    "s.setsockopt(socket.SOL_SOCKET, 25, b'lo');"
    "host == '::' and s.setsockopt(41, 26, 1); s.bind((host, port)); s.listen();"
    "print(os.getpid(), flush=True); time.sleep(600)"
)


def _shares_the_socket(host: str) -> Step:
    """Another service that was given the listening socket, and opens another one."""

    def step(b: Bench) -> None:
        b.machine.write("/run/stranger.py", _LISTEN, 0o644)
        b.machine.write(
            "/run/systemd/system/stranger.service",
            f"[Service]\nSockets={SOCKET}\nUser=nobody\nAmbientCapabilities=CAP_NET_RAW\n"
            f"WorkingDirectory={CURRENT}/work\n"
            f"Environment=HOME={b.sh(f'dirname $(readlink -f {HOME}/.optillm)').strip()}\n"
            f"ExecStart=/usr/bin/python3 /run/stranger.py {host} {b.other_port}\n",
        )
        b.sh("systemctl daemon-reload && systemctl start stranger")
        until(b, f"ss -ltn | grep -q :{b.other_port}")

    return step


BINDS = [
    Fault(
        "binds",
        "listens on 0.0.0.0",
        "unit.no-weakening-dropin",
        lambda b: drop_in(
            "BindToDevice=lo",
            "ListenStream=",
            f"ListenStream=0.0.0.0:{b.port}",
            unit=SOCKET,
            then=f"systemctl restart {SOCKET} {UNIT}",
        )(b),
    ),
    Fault(
        "binds",
        "listens on ::",
        "unit.no-weakening-dropin",
        lambda b: drop_in(
            "BindToDevice=lo",
            "ListenStream=",
            f"ListenStream=[::]:{b.port}",
            unit=SOCKET,
            then=f"systemctl restart {SOCKET} {UNIT}",
        )(b),
    ),
    Fault(
        "binds",
        "a second listener of what shares the socket, on 0.0.0.0",
        "bind.loopback",
        _shares_the_socket("0.0.0.0"),
    ),
    Fault(
        "binds",
        "a second listener of what shares the socket, on another port",
        "bind.loopback",
        _shares_the_socket("127.0.0.1"),
    ),
    Fault(
        "binds",
        "the socket was read with another port",
        "socket.owner",
        lambda b: b.sh(
            f"cp -p {SOCKET_FILE} /run/kept.socket; "
            f"sed -i s/:{b.port}/:{b.other_port}/ {SOCKET_FILE}; systemctl daemon-reload;"
            f"systemctl restart {SOCKET}; cp -p /run/kept.socket {SOCKET_FILE}; "
            "systemctl daemon-reload"
        ),
    ),
    Fault(
        "binds",
        "another port configured and not installed",
        "unit.matches",
        lambda b: b.sh(f"sed -i s/{b.port}/{b.other_port}/ {ETC}/optictl.yaml"),
        # with the new port installed, LiteLLM would still send its requests to the old one
        # (routing.reached): the port was a mistake
        outside=lambda b: b.configure(),
    ),
    Fault(
        "binds",
        "another program has the port",
        "socket.owner",
        lambda b: (
            b.sh(f"systemctl stop {SOCKET} {UNIT}"),
            b.stranger(_LISTEN, "127.0.0.1", str(b.port)),
        ),
    ),
    Fault(
        "binds",
        "another program has the port on ::1",
        "socket.owner",
        lambda b: b.stranger(_LISTEN, "::1", str(b.port)),
    ),
]


# keys


def _same_key_again(b: Bench) -> None:
    """The key that LiteLLM has, again."""
    put(f"{ETC}/proxy_key", f"{PROXY_KEY}\n")(b)
    b.sh(f"systemctl restart {UNIT}")
    put(f"{LITELLM}/litellm.env", f"{render.LITELLM_KEY_VARIABLE}={PROXY_KEY}\n")(b)


def _bad_key(name: str, key: str) -> Fault:
    def step(b: Bench) -> None:
        put(f"{ETC}/proxy_key", f"{key}\n")(b)
        put(f"{LITELLM}/litellm.env", f"{render.LITELLM_KEY_VARIABLE}={key}\n")(b)

    return Fault("keys", name, "key.strength", step, after=_same_key_again)


KEYS = [
    _bad_key("a short key", "short"),
    _bad_key("a key that begins with sk-", "sk-0123456789abcdefghijklmnop"),
    _bad_key("the key is also OPENAI_API_KEY", litellm_proxy.MASTER_KEY),
    Fault(
        "keys",
        "no proxy_key file",
        "key.strength",
        sh(f"rm {ETC}/proxy_key"),
        after=_same_key_again,
    ),
    Fault(
        "keys",
        "the key in the argument list",
        "unit.matches",
        # the guard would refuse a start with it, so the running service keeps the unit from before
        sh(
            f"sed -i 's,@${{CREDENTIALS_DIRECTORY}}/proxy_key,{PROXY_KEY},' {SERVICE_FILE} && "
            "systemctl daemon-reload"
        ),
    ),
    Fault(
        "keys",
        "the proxy key is world-readable",
        "files.ownership",
        sh(f"chmod 0644 {ETC}/proxy_key"),
    ),
    Fault(
        "keys",
        "the env file is readable by its group",
        "files.ownership",
        sh(f"chmod 0640 {ETC}/env"),
    ),
    Fault(
        "keys",
        "rotated, and OptiLLM not restarted",
        "health.connected",
        lambda b: (
            put(f"{ETC}/proxy_key", "optillm-another-key-0123456789-abcdef\n")(b),
            b.tell_litellm(),
        ),
        after=_same_key_again,
    ),
    Fault(
        "keys",
        "rotated on OptiLLM's side only",
        "routing.key",
        lambda b: (
            put(f"{ETC}/proxy_key", "optillm-another-key-0123456789-abcdef\n")(b),
            b.sh(f"systemctl restart {UNIT}"),
        ),
        outside=Bench.tell_litellm,
        says="set NAME to the proxy key in LiteLLM's environment",
        typed="",
        after=_same_key_again,
    ),
    Fault(
        "keys",
        "rotated on LiteLLM's side only",
        "routing.key",
        put(
            f"{LITELLM}/litellm.env",
            f"{render.LITELLM_KEY_VARIABLE}=optillm-another-key-0123456789-abcdef\n",
        ),
        outside=Bench.tell_litellm,
        says="set NAME to the proxy key in LiteLLM's environment",
        typed="",
    ),
    Fault(
        "keys",
        "a wrong key toward LiteLLM",
        "upstream.base-model",
        lambda b: (
            put(f"{ETC}/env", "OPENAI_API_KEY=sk-wrong\n")(b),
            b.sh(f"systemctl restart {UNIT}"),
        ),
        outside=put(f"{ETC}/env", f"OPENAI_API_KEY={litellm_proxy.MASTER_KEY}\n"),
        says="write OPENAI_API_KEY=<a key that LiteLLM accepts>",
        typed="optictl restart",
    ),
]


# proxy_config

_OTHER = "  - {name: other, base_url: https://api.example.com/v1, api_key: x}"
PROVIDER_FILE = [
    Fault("proxy_config", "missing", "proxy-config.litellm-only", sh(f"rm {PROVIDERS}")),
    Fault(
        "proxy_config",
        "unparsable",
        "proxy-config.litellm-only",
        sh(f"echo 'providers: [' > {PROVIDERS}"),
    ),
    Fault(
        "proxy_config",
        "a second provider",
        "proxy-config.litellm-only",
        sh(f"sed -i '/^providers:/a\\{_OTHER}' {PROVIDERS}"),
    ),
    Fault(
        "proxy_config",
        "a public host",
        "proxy-config.litellm-only",
        sh(f"sed -i s,http://127.0.0.1:,https://api.example.com:, {PROVIDERS}"),
    ),
    Fault(
        "proxy_config",
        "a key in place of the variable",
        "proxy-config.litellm-only",
        sh(f"sed -i 's,api_key:.*,api_key: dummy,' {PROVIDERS}"),
    ),
    Fault(
        "proxy_config",
        "shadowed by another HOME",
        "unit.no-weakening-dropin",
        drop_in("Environment=HOME=/tmp", then=f"{RESTART}; sleep 2"),
    ),
]


# files

FILES = [
    Fault(
        "files",
        "the env file belongs to another user",
        "files.ownership",
        sh(f"chown 12345 {ETC}/env"),
    ),
    Fault(
        "files",
        "the provider file belongs to another user",
        "files.ownership",
        sh(f"chown 12345 {PROVIDERS}"),
    ),
    Fault(
        "files",
        "optictl.yaml is world-writable",
        "files.ownership",
        sh(f"chmod 0666 {ETC}/optictl.yaml"),
    ),
    Fault(
        "files",
        "the releases are world-writable",
        "files.ownership",
        sh(f"chmod 0777 {OPT}/releases"),
    ),
    Fault(
        "files",
        "the unit file is world-writable",
        "files.ownership",
        sh(f"chmod 0666 {SERVICE_FILE}"),
    ),
    Fault(
        "files",
        "the service cannot read the provider file",
        "files.ownership",
        sh(f"chmod 0600 {PROVIDERS}"),
    ),
    Fault(
        "files",
        "the proxy key is a link",
        "files.ownership",
        sh(f"mv {ETC}/proxy_key {ETC}/real && ln -s {ETC}/real {ETC}/proxy_key"),
        after=sh(f"rm {ETC}/real"),
    ),
    Fault(
        "files",
        "an unknown key in optictl.yaml",
        "config.valid",
        sh(f"echo 'colour: blue' >> {ETC}/optictl.yaml"),
        outside=lambda b: b.configure(),
        says="edit",
        typed="",
    ),
    Fault(
        "files",
        "a plugin in the working directory",
        "workdir.empty",
        sh(
            f"mkdir -p {CURRENT}/work/optillm/plugins && "
            f"echo 'SLUG = \"evil\"' > {CURRENT}/work/optillm/plugins/evil.py"
        ),
    ),
    Fault(
        "files",
        "the working directory is world-writable",
        "workdir.empty",
        sh(f"chmod 0777 {CURRENT}/work"),
    ),
]
