"""Images per second of prediction: a plain loop, the Predictor, and from file to file.

    python benchmarks/prediction.py

DeepLabV3+ on MobileNetV2, images of 360x480, 11 classes, one at a time.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import harness

HEIGHT, WIDTH, CLASSES, IMAGES = 360, 480, 11, 20


def plain() -> tuple[harness.Work, int]:
    """PyTorch's defaults: contiguous maps, batch normalization not folded."""
    import torch

    from pixelwise.models import create_model
    from pixelwise.weights.normalization import IMAGENET

    torch.manual_seed(0)
    model = create_model("deeplab_v3plus", num_classes=CLASSES).eval()
    image = torch.randint(0, 256, (1, 3, HEIGHT, WIDTH), dtype=torch.uint8)

    def one() -> None:
        with torch.inference_mode():
            model(IMAGENET(image))[0].argmax(0).to(torch.uint8).numpy()

    return one, 1


def predictor() -> tuple[harness.Work, int]:
    """The Predictor, from an array in memory to class indices."""
    subject = _predictor()
    image = _image()
    return lambda: subject.predict_labels(image), 1


def files() -> tuple[harness.Work, int]:
    """The same as `pixelwise predict`: decode a JPEG, predict, write the mask and the overlay."""
    from PIL import Image

    subject = _predictor()
    folder = Path(tempfile.mkdtemp(prefix="pixelwise-bench-"))
    Image.fromarray(_image()).save(folder / "in.jpg", quality=95)
    return lambda: subject(folder / "in.jpg").save(folder, "out"), 1


def _predictor():  # type: ignore[no-untyped-def]
    from pixelwise.process_settings import tune_allocator

    tune_allocator()
    import torch

    from pixelwise.data.layouts.camvid import CLASSES as CAMVID
    from pixelwise.inference import Predictor
    from pixelwise.models import create_model
    from pixelwise.weights.normalization import IMAGENET

    torch.manual_seed(0)
    return Predictor.from_model(
        create_model("deeplab_v3plus", num_classes=CLASSES), CAMVID, IMAGENET
    )


def _image():  # type: ignore[no-untyped-def]
    from pixelwise.data.scenes import generate_scene

    return generate_scene(0, height=HEIGHT, width=WIDTH)[0]


if __name__ == "__main__":
    harness.main(
        f"Prediction, DeepLabV3+ on MobileNetV2, {HEIGHT}x{WIDTH}, one image at a time",
        {
            "plain PyTorch": plain,
            "Predictor": predictor,
            "pixelwise predict, JPEG to PNG files": files,
        },
        units=IMAGES,
        peers={},
    )
    harness.finish()
