"""The models of this project: towers, heads, tokenizer, checkpoint."""
