"""What a model is made of: where it holds tensors, which of them lie in the memory, what goes in and comes out."""
