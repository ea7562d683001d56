"""PyTorch models: read as scopes, written as copies."""
