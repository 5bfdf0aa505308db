"""Take over a hand-made service: read its unit, and propose a configuration for a deployment."""
