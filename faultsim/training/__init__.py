"""Training loops that can be killed and resumed."""
