"""A deployment as data: its configuration, its paths and the text of its files. Pure."""
