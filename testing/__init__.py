"""What tests and benchmarks share: machines, deployments, load, faults."""
