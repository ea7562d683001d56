"""One module per kind of test. Each explains: None is chosen, a text is why not."""
