"""Images: items that open themselves, and batches that are decoded ahead."""
