"""The flow discriminator: its network, its training, and the clips that it is trained on."""
