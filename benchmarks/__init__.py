"""Figures side by side with peers and raw floors, as ratios within one run: `python -m benchmarks`."""
