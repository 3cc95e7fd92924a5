"""How forward passes are fast while the answers stay the same."""
