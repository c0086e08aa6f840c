"""A page with augmented training images, to judge the settings before a run."""

from __future__ import annotations

from pathlib import Path

from pixelwise import pages
from pixelwise.data.pixel_format import as_shown
from pixelwise.report.example_images import image_source, mask_source
from pixelwise.training import Run
from pixelwise.training.loading import BatchOrder, augmented_train_split

SAMPLES = 12


def write_preview(run: Run, path: Path) -> None:
    """Write a page with the first twelve images of a run as its network will see them.

    If there are fewer training images, later epochs show them again.

    Args:
        run: A run, possibly one that has not begun: see `plan_training`.
        path: The HTML file to write.

    Raises:
        InputError: If the augmentation does not fit the images, or the file cannot be written.
    """
    split = augmented_train_split(run)
    order = BatchOrder(len(split), batch_size=run.recipe.batch_size, seed=run.recipe.seed)
    keys: list[tuple[int, int]] = []
    while len(keys) < SAMPLES:
        order.begin(order.epoch + 1)
        keys += [key for batch in order for key in batch]
    samples = []
    for key in keys[:SAMPLES]:
        pixels, mask = (tensor.numpy() for tensor in split[key])
        shown = as_shown(pixels.transpose(1, 2, 0))
        samples.append(
            {
                "name": split.samples[key[1]].name,
                "image": image_source(shown),
                "mask": mask_source(mask, run.data.classes),
                "width": shown.shape[1],
                "height": shown.shape[0],
            }
        )
    settings = run.recipe.augmentation.model_dump(mode="json")
    pages.write_page(
        path,
        package="pixelwise.report",
        template="preview.html.j2",
        title=f"Augmentation of {run.data.root.resolve().name}",
        samples=samples,
        settings={key: str(value) for key, value in settings.items()},
        legend=[
            (name, pages.css_color(color))
            for name, color in zip(run.data.classes.names, run.data.classes.colors, strict=True)
        ],
    )
