"""Benchmarks: every figure is a ratio to something plain that was measured in the same run on the same buffers."""
