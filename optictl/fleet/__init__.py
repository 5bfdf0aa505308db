"""The same deployment on several hosts: what the controller prepares, and what it makes of Ansible's events.

Ansible is the scheduler, the transport and the inventory. The collection that it runs is in `optictl/collections`.
"""
