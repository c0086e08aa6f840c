"""Measure images/s of training steps: PyTorch's defaults, `pixelwise train`, and smp.

    python benchmarks/training.py [--peer PYTHON] [--busy CORES]

DeepLabV3+ on MobileNetV2, batch 8 of 352x480, 11 classes. PYTHON is an interpreter with
segmentation-models-pytorch; without it smp is skipped. --busy: the number of other processes that
compute at the same time, as a browser or another job would.
"""

from __future__ import annotations

from pathlib import Path

import harness

BATCH, HEIGHT, WIDTH, CLASSES, STEPS = 8, 352, 480, 11, 4


def plain() -> tuple[harness.Work, int]:
    """As a script that imports the network: PyTorch's defaults and contiguous feature maps."""
    return _steps(memory_format="contiguous", kernels="plain")


def without_kernels() -> tuple[harness.Work, int]:
    """As the command without numba."""
    _as_program()
    return _steps(memory_format="auto", kernels="plain")


def as_run() -> tuple[harness.Work, int]:
    """As the command: tuned allocator, limited OpenMP spinning, the fastest kernels."""
    _as_program()
    return _steps(memory_format="auto", kernels="auto")


def _as_program() -> None:
    from pixelwise.process_settings import limit_omp_spin, tune_allocator

    limit_omp_spin()
    tune_allocator()


def _steps(*, memory_format: str, kernels: str) -> tuple[harness.Work, int]:
    import torch

    from pixelwise.models import create_model
    from pixelwise.training import load_recipe
    from pixelwise.training.kernel_selection import select_kernels
    from pixelwise.training.losses import cross_entropy
    from pixelwise.training.optimizer import make_optimizer
    from pixelwise.weights.normalization import IMAGENET

    torch.manual_seed(0)
    model = create_model("deeplab_v3plus", num_classes=CLASSES).train()
    kernel_config = select_kernels(
        model,
        crop=(HEIGHT, WIDTH),
        num_classes=CLASSES,
        device=torch.device("cpu"),
        memory_format=memory_format,
        kernels=kernels,
    ).kernel_config
    kernel_config.apply(model)
    optimizer = make_optimizer(model, load_recipe())
    images = torch.randint(0, 256, (BATCH, 3, HEIGHT, WIDTH), dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (BATCH, HEIGHT, WIDTH), dtype=torch.uint8)

    def step() -> None:
        batch = IMAGENET(kernel_config.to_memory_format(images))
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(model(batch), labels).backward()
        optimizer.step()

    return step, BATCH


SMP = f"""
import json, os, sys
sys.path[:0] = [{str(Path(__file__).parent)!r}, *filter(None, [os.environ.get("PEER_PATH")])]
try:
    import torchvision_stub  # if the torchvision build does not fit the installed PyTorch
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
        {
            "plain PyTorch": plain,
            "pixelwise train, without numba": without_kernels,
            "pixelwise train": as_run,
        },
        units=STEPS,
        peers={"smp as installed": ["-c", SMP]},
    )
    harness.finish()
