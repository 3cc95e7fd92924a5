"""The compiled kernel: how it is loaded and called, where it runs, and the reference that it equals."""
