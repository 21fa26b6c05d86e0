"""Training: typed configuration, the loop, checkpoints that resume exactly, and the bundle it leaves."""
