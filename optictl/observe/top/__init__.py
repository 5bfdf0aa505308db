"""`optictl top`: what the service does now. model: two snapshots -> one screen; `run` takes and shows them."""
