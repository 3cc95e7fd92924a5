"""NeuralFuse: a small network in front of the input that wins back the accuracy lost to bit errors.

Importing this package imports neither torch nor a generator; use its modules (`neuralfuse.generators`, ...).
"""
