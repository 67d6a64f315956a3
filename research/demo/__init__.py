"""Training of the demo model, and the truth of its world."""
