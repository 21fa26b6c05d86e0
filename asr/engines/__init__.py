"""Engines: what computes log-probabilities from samples."""
