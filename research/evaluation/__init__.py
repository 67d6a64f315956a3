"""Suites, peers and the evidence."""
