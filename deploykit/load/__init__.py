"""Load: Locust in a child process, open loop by default, with shapes, thresholds and a report."""
