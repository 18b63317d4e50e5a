"""Cards of tasks, models, recipes, studies, class lists and prompts: TOML files, found by name, bound to modules."""
