"""Other methods on the demo model, for comparison; not part of the node pack."""
