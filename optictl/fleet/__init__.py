"""The same deployment on several hosts: preparation on the controller, and results from Ansible.

Ansible provides the inventory, the connections and the order. Its collection is in
`optictl/collections`.
"""
