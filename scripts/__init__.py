"""Helpers of run.py, the demo and the tests. Not part of what ComfyUI loads."""
