"""Training: typed configuration, the Lightning module and its data, checkpoints and the bundle they leave."""
