"""Images: items that are opened when needed, and their decoding in worker processes."""
