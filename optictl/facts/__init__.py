"""What is on this machine: the deployment, its units, its files. Reads only."""
