"""Runtimes: what runs replicas. `base` is the contract; each sibling fulfils it."""
