"""The general discriminator: faults, data, training."""
