"""What developers and benchmarks use beside the services; not part of the distribution."""
