"""The paper: learnable tokens, the losses of motion, and the loop that joins them."""
