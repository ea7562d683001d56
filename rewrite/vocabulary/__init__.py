"""The vocabulary: every operation that rules can name, looked up by name, family or spelling."""
