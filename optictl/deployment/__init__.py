"""What a deployment is made of: its configuration, its paths, its files as text. Pure."""
