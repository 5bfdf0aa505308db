"""Access to the machine: files, processes, systemd, network, uv and Ansible.

`files` reads and writes the disk, `processes` reads /proc and starts services, `systemd` calls
systemctl and journalctl, `network` sends HTTP requests, `uv` builds Python environments, `wheels`
downloads and packs wheels, `playbooks` runs Ansible, `program` finds the installed optictl, and
`terminal` reads keys.
"""
