"""The service that was there before optictl: read from its unit, and what of it a deployment can keep."""
