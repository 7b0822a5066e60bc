"""deploykit: Compose files to load-balanced replicas, scaling and judged canary rollouts."""

__version__ = "0.1.0"
