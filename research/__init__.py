"""What the claims rest on, and the pack never loads: training of the demo model, faults, suites, baselines, costs."""
