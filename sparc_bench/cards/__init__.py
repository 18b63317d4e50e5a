"""What the TOML files say: task, model, recipe, study and word-list cards, found by name and bound to their modules."""
