"""The two-tower models that this project trains: towers, heads, tokenizer, checkpoint."""
