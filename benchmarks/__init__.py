"""What a rewrite costs, measured beside bare `torch.fx` in the same run. `make bench` runs both scripts."""
