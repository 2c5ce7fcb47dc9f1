"""Speed and memory beside PyTorch and the peers: `python -m benchmarks.run`, or `make bench`."""
