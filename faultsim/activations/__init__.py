"""Activations as fault sites, and their ranges."""
