"""The card of a task that classifies a folder of photos by the names of their folders."""

from sparc_bench.cards.task_card import TaskCard


def photo_task(folder):
    """Top-1 of the photos of `folder` under the data root."""
    return TaskCard(
        name=folder,
        title=folder.capitalize(),
        family="classification",
        dataset="image_folder",
        split="test",
        data={"folder": folder},
        protocol="classification",
        options={"prompts": "bare", "classes": "own", "top_k": [1], "ties": "expected"},
        headline="top1",
        source="test",
    )
