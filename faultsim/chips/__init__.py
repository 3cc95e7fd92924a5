"""The failing cells of a chip as a list: measured ones, and those of simulated chips."""
