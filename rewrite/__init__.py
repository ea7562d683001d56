"""A language for changing neural networks: rules in a file, applied to a model that stays what it was."""
