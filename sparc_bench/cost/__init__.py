"""The cost of a training step of each objective (time, memory, FLOPs, beside CLIP's), of encoding and of scoring."""
