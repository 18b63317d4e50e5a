"""What a training step of each objective costs: time, memory, FLOPs, each beside CLIP's."""
