"""Suites, baselines and the evidence."""
