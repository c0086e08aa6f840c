"""images/s of training steps: plain PyTorch, the same as `pixelwise train` runs it, and smp.

    python benchmarks/training.py [--peer PYTHON]

DeepLabV3+ on MobileNetV2, batch 8 of 352x480, 11 classes. PYTHON is an interpreter with
segmentation-models-pytorch; without it smp is left out.
"""

from __future__ import annotations

from pathlib import Path

import harness

BATCH, HEIGHT, WIDTH, CLASSES, STEPS = 8, 352, 480, 11, 4


def plain() -> tuple[harness.Work, int]:
    """As a script does that imports the network: PyTorch's defaults, contiguous maps."""
    return _steps(layout="contiguous")


def as_run() -> tuple[harness.Work, int]:
    """As the command does: freed memory kept, the layout that was measured to be faster."""
    from pixelwise.process import own_process

    own_process()
    return _steps(layout="auto")


def _steps(*, layout: str) -> tuple[harness.Work, int]:
    import torch

    from pixelwise.checkpoints import IMAGENET
    from pixelwise.models import create_model
    from pixelwise.training import load_recipe
    from pixelwise.training.layout import LAYOUTS, choose_layout
    from pixelwise.training.losses import cross_entropy
    from pixelwise.training.optimizer import make_optimizer

    torch.manual_seed(0)
    model = create_model("deeplab_v3plus", num_classes=CLASSES).train()
    if layout == "auto":
        layout = choose_layout(
            model, crop=(HEIGHT, WIDTH), num_classes=CLASSES, device=torch.device("cpu")
        ).name
    memory_format = LAYOUTS[layout]
    model.to(memory_format=memory_format)
    optimizer = make_optimizer(model, load_recipe())
    images = torch.randint(0, 256, (BATCH, 3, HEIGHT, WIDTH), dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (BATCH, HEIGHT, WIDTH), dtype=torch.uint8)

    def step() -> None:
        batch = IMAGENET(images.contiguous(memory_format=memory_format))
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(model(batch), labels).backward()
        optimizer.step()

    return step, BATCH


SMP = f"""
import json, os, sys
sys.path[:0] = [{str(Path(__file__).parent)!r}, *filter(None, [os.environ.get("PEER_PATH")])]
try:
    import torchvision_stub  # where torchvision's own build does not fit the installed PyTorch
except ImportError:
    pass
import harness, torch, torch.nn.functional as F, segmentation_models_pytorch as smp
torch.manual_seed(0)
model = smp.DeepLabV3Plus("mobilenet_v2", encoder_weights=None, classes={CLASSES}).train()
optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
images = torch.randn({BATCH}, 3, {HEIGHT}, {WIDTH})
labels = torch.randint(0, {CLASSES}, ({BATCH}, {HEIGHT}, {WIDTH}))
def step():
    loss = F.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(json.dumps(harness.measure(step, {BATCH}, units={STEPS})))
"""

if __name__ == "__main__":
    harness.main(
        f"Training steps, DeepLabV3+ on MobileNetV2, batch {BATCH} of {HEIGHT}x{WIDTH}",
        {"plain PyTorch": plain, "pixelwise train": as_run},
        units=STEPS,
        peers={"smp as installed": ["-c", SMP]},
    )
