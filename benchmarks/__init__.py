"""What a rewrite costs, measured beside bare `torch.fx` and networkx in the same run. `make bench` runs all scripts."""
