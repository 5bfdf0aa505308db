"""All that optictl prints."""
