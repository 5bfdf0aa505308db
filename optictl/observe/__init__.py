"""status, logs and top."""
