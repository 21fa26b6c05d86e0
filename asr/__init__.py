"""Speech recognition with convolutions, LSTMs and CTC."""
