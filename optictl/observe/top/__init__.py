"""`optictl top`: the current activity of the service.

`model` makes one screen of two snapshots; `run` takes the snapshots and shows the screens.
"""
