"""Losses against values computed by hand, against other implementations, and at their limits."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.data.classes import IGNORE
from pixelwise.data.scenes import write_scenes
from pixelwise.errors import InputError
from pixelwise.recipes.loss_terms import LOSS_NAMES, Term, parse_terms
from pixelwise.recipes.schema import ResolvedLossRecipe
from pixelwise.training import load_recipe, train
from pixelwise.training.losses.boundary_loss import boundary, signed_distances
from pixelwise.training.losses.pixel_losses import cross_entropy, focal, ohem
from pixelwise.training.losses.region_losses import LEVELS, dice, lovasz_softmax
from pixelwise.training.losses.registry import LOSSES
from pixelwise.training.losses.segmentation_loss import SegmentationLoss, make_class_weights

CPU = torch.device("cpu")


def make(name: str, classes: int = 3, **settings: object) -> SegmentationLoss:
    recipe = ResolvedLossRecipe.model_validate({"name": name, "class_weights": "none", **settings})
    return SegmentationLoss(recipe, np.ones(classes, dtype=np.int64), device=CPU)


def of_probabilities(*pixels: list[float]) -> torch.Tensor:
    """Return logits (1, C, 1, P) whose softmax are these probabilities."""
    return torch.tensor(pixels).T[None, :, None].log()


def waves(classes: int = 4, height: int = 5, width: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and labels that need no random generator, to compare with other libraries."""
    numbers = torch.arange(2 * classes * height * width, dtype=torch.float32)
    logits = (3 * torch.sin(numbers * 1.7)).reshape(2, classes, height, width)
    labels = (torch.arange(2 * height * width) * 7 % 11 % classes).reshape(2, height, width)
    labels[0, :2] = IGNORE
    return logits, labels


# --- Pixel losses


def test_cross_entropy_is_the_mean_over_valid_pixels() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 4, 5, 6), torch.randint(4, (2, 5, 6))
    labels[0, :3] = IGNORE
    expected = F.cross_entropy(logits, labels, ignore_index=IGNORE)
    assert torch.allclose(cross_entropy(logits, labels.to(torch.uint8)), expected)
    weights = torch.tensor([0.5, 2.0, 0.0, 1.0])
    expected = F.cross_entropy(logits, labels, weight=weights, ignore_index=IGNORE)
    assert torch.allclose(cross_entropy(logits, labels, weights), expected)


def test_label_smoothing_by_hand() -> None:
    logits, labels = of_probabilities([0.5, 0.3, 0.2], [0.1, 0.1, 0.8]), torch.tensor([[[0, 255]]])
    others = -(math.log(0.5) + math.log(0.3) + math.log(0.2)) / 3
    expected = 0.9 * -math.log(0.5) + 0.1 * others
    assert cross_entropy(logits, labels, label_smoothing=0.1).item() == pytest.approx(expected)


def test_focal_by_hand_and_equal_to_cross_entropy_with_gamma_0() -> None:
    logits, labels = of_probabilities([0.25, 0.75], [0.1, 0.9]), torch.tensor([[[0, 1]]])
    expected = (0.75**2 * -math.log(0.25) + 0.1**2 * -math.log(0.9)) / 2
    assert focal(logits, labels).item() == pytest.approx(expected)
    weights = torch.tensor([1.0, 3.0])
    expected = (0.75**2 * -math.log(0.25) + 3 * 0.1**2 * -math.log(0.9)) / 4
    assert focal(logits, labels, weights).item() == pytest.approx(expected)
    logits, labels = waves()
    weights = torch.tensor([0.5, 2.0, 0.0, 1.0])
    assert torch.allclose(
        focal(logits, labels, weights, gamma=0), cross_entropy(logits, labels, weights)
    )
    assert torch.allclose(
        focal(logits, labels, gamma=0, reduction="sum"),
        cross_entropy(logits, labels, reduction="sum"),
    )


def test_ohem_counts_hard_pixels_and_a_minimum_fraction() -> None:
    logits = of_probabilities([0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.95, 0.05], [0.01, 0.99])
    labels = torch.tensor([[[0, 0, 0, 0, IGNORE]]])
    two = -(math.log(0.6) + math.log(0.2)) / 2
    assert ohem(logits, labels, threshold=0.7, min_kept=0).item() == pytest.approx(two)
    assert ohem(logits, labels, threshold=0.1, min_kept=0.5).item() == pytest.approx(two)
    three = -(math.log(0.9) + math.log(0.6) + math.log(0.2)) / 3
    assert ohem(logits, labels, threshold=0.7, min_kept=0.75).item() == pytest.approx(three)
    assert torch.allclose(ohem(logits, labels, min_kept=1), cross_entropy(logits, labels))


# --- Region losses


def test_dice_by_hand() -> None:
    logits = of_probabilities([0.8, 0.1, 0.1], [0.4, 0.5, 0.1], [0.3, 0.3, 0.4])
    labels = torch.tensor([[[0, 1, IGNORE]]])
    # Class 2 is not in the labels and does not count.
    first, second = 2 * 0.8 / (0.8 + 0.4 + 1), 2 * 0.5 / (0.1 + 0.5 + 1)
    assert dice(logits, labels).item() == pytest.approx(1 - (first + second) / 2)
    weights = torch.tensor([1.0, 3.0, 1.0])
    assert dice(logits, labels, weights).item() == pytest.approx(1 - (first + 3 * second) / 4)


def test_lovasz_softmax_by_hand() -> None:
    logits, labels = (
        of_probabilities([0.8, 0.2], [0.4, 0.6], [0.7, 0.3]),
        torch.tensor([[[0, 1, 1]]]),
    )
    # Class 0: errors 0.7 and 0.4 outside, 0.2 inside. With the first pixel wrong the IoU is 1/2,
    # with two 1/3, with all 0. Class 1: 0.7 and 0.4 inside, 0.2 outside: 1/2, 0, 0.
    first = 0.7 * 1 / 2 + 0.4 * (2 / 3 - 1 / 2) + 0.2 * (1 - 2 / 3)
    second = 0.7 * 1 / 2 + 0.4 * (1 - 1 / 2)
    assert lovasz_softmax(logits, labels).item() == pytest.approx((first + second) / 2)


def test_region_losses_equal_those_of_segmentation_models_pytorch() -> None:
    # smp 0.6.0: DiceLoss and LovaszLoss ("multiclass", ignore_index=255) on the same numbers; its
    # Dice is 0 for a class that is not in the labels, of which there is none here.
    logits, labels = waves()
    assert dice(logits, labels).item() == pytest.approx(0.7657719, rel=1e-5)
    assert lovasz_softmax(logits, labels).item() == pytest.approx(0.7882223, rel=1e-5)


def test_lovasz_softmax_equals_the_extension_in_an_exact_order() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(2, 3, 64, 80, generator=generator)).requires_grad_()
    labels = torch.randint(3, (2, 64, 80), generator=generator)
    lovasz_softmax(logits, labels).backward()
    exact = logits.detach().double().requires_grad_()
    probabilities = exact.softmax(dim=1).permute(1, 0, 2, 3).reshape(3, -1)
    loss = exact.new_zeros(())
    for index, probability in enumerate(probabilities):
        truth = (labels.reshape(-1) == index).double()
        errors, order = (truth - probability).abs().sort(descending=True)
        ordered = truth[order]
        wrong = 1 - (truth.sum() - ordered.cumsum(0)) / (truth.sum() + (1 - ordered).cumsum(0))
        loss = loss + errors @ torch.cat([wrong[:1], wrong.diff()]) / 3
    loss.backward()
    assert lovasz_softmax(logits, labels).item() == pytest.approx(loss.item(), abs=1 / LEVELS)
    difference = torch.linalg.norm(logits.grad - exact.grad) / torch.linalg.norm(exact.grad)
    assert difference < 1e-3


@given(st.integers(0, 2**32 - 1))
def test_region_losses_of_hard_predictions_are_one_minus_the_scores(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, 3, (2, 2, 4, 5))
    truth[rng.random(truth.shape) < 0.2] = IGNORE
    logits = 1e4 * F.one_hot(torch.from_numpy(predicted), 3).permute(0, 3, 1, 2).float()
    valid = truth != IGNORE
    iou, dices = [], []
    for index in np.unique(truth[valid]):
        both = ((truth == index) & (predicted == index)).sum()
        sizes = (truth == index).sum() + ((predicted == index) & valid).sum()
        iou.append(both / (sizes - both))
        dices.append(2 * both / sizes)
    labels = torch.from_numpy(truth)
    assert lovasz_softmax(logits, labels).item() == pytest.approx(1 - np.mean(iou or 1), abs=1e-6)
    assert dice(logits, labels).item() == pytest.approx(1 - np.mean(dices or 1), abs=1e-6)


# --- The boundary loss


def test_signed_distances_by_hand() -> None:
    labels = np.array([[[0, 0, 0, 1, 1, IGNORE, IGNORE]]])
    found = signed_distances(labels, classes=3)
    assert found[0, 0].tolist() == [[-2, -1, 0, 1, 2, 3, 4]]
    # The two ignored pixels are not a boundary of class 1.
    assert found[0, 1, 0, :5].tolist() == [3, 2, 1, 0, -1]
    assert not found[0, 2].any()
    assert not signed_distances(np.zeros((1, 3, 3), np.uint8), classes=2).any()


@given(st.integers(0, 2**32 - 1))
def test_signed_distances_equal_a_brute_force_search(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2, IGNORE], (1, 5, 6), p=[0.4, 0.3, 0.1, 0.2])
    found = signed_distances(labels, classes=3)
    positions = {n: np.argwhere(labels[0] == n) for n in (0, 1, 2)}
    for row, column in np.ndindex(5, 6):
        own = labels[0, row, column]
        if own == IGNORE:
            continue
        to = {n: np.hypot(*(p - (row, column)).T).min() for n, p in positions.items() if len(p)}
        for number in range(3):
            expected = 0.0
            if len(to) > 1 and number in to:
                nearest = min(d for n, d in to.items() if n != own)
                expected = 1 - nearest if number == own else to[number]
            assert found[0, number, row, column] == pytest.approx(expected)


def test_the_boundary_loss_by_hand() -> None:
    logits = of_probabilities([0.8, 0.2], [0.4, 0.6], [0.5, 0.5])
    labels = torch.tensor([[[0, 1, 1]]])
    # Distances of class 0: 0, 1, 2; of class 1: 1, 0, -1.
    first, second = (0.4 * 1 + 0.5 * 2) / 3, (0.2 * 1 - 0.5 * 1) / 3
    assert boundary(logits, labels).item() == pytest.approx((first + second) / 2)
    weights = torch.tensor([1.0, 3.0])
    assert boundary(logits, labels, weights).item() == pytest.approx((first + 3 * second) / 4)


def test_without_scipy_the_boundary_loss_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.ndimage", None)
    with pytest.raises(InputError, match=r"pip install 'scipy>=1\.14'"):
        make("cross_entropy+0.01*boundary")


# --- Properties of all losses


@pytest.mark.parametrize("weights", ["none", "median_frequency", [1.0, 2.0, 0.5]])
@pytest.mark.parametrize("name", LOSSES)
def test_a_crop_of_ignored_pixels_has_loss_0_and_no_gradient(name: str, weights: object) -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    ignored = torch.full((2, 4, 4), IGNORE, dtype=torch.uint8)
    loss = make(name, class_weights=weights)(logits, ignored)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_pixels_have_no_influence(name: str) -> None:
    logits, labels = waves(classes=3)
    logits.requires_grad_()
    loss = make(name)(logits, labels)
    loss.backward()
    ignored = (labels == IGNORE)[:, None].expand_as(logits)
    assert logits.grad is not None
    assert not logits.grad[ignored].any()
    assert logits.grad[~ignored].any()
    changed = torch.where(ignored, torch.full_like(logits, 50.0), logits)
    assert make(name)(changed, labels).item() == pytest.approx(loss.item(), rel=1e-6)


@pytest.mark.parametrize("size", [100.0, 1e4, 1e30])
@pytest.mark.parametrize("name", [*LOSSES, "small focal"])
def test_gradients_of_extreme_logits_are_finite(name: str, size: float) -> None:
    labels = torch.tensor([[[0, 1, 2, 0, IGNORE]]])
    logits = size * torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, -1, -1], [-1, 1, 1], [0, 1, 0]])
    logits = logits.T[None, :, None].clone().requires_grad_()
    loss = make("focal", focal_gamma=0.2) if name == "small focal" else make(name)
    value = loss(logits, labels)
    value.backward()
    assert torch.isfinite(value)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", [*LOSSES, "cross_entropy+0.01*boundary"])
def test_gradient_descent_learns_to_tell_three_colors_apart(name: str) -> None:
    labels = torch.zeros(1, 12, 12, dtype=torch.long)
    labels[:, 3:9, 2:6], labels[:, 6:, 7:], labels[:, 0] = 1, 2, IGNORE
    generator = torch.Generator().manual_seed(0)
    colors = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    image = colors[labels.clamp(max=2)].permute(0, 3, 1, 2)
    image = image + 0.1 * torch.randn(image.shape, generator=generator)
    layer = torch.nn.Conv2d(3, 3, 1)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.2)
    loss = make(name)
    for _ in range(60):
        optimizer.zero_grad()
        loss(layer(image), labels).backward()
        optimizer.step()
    correct = (layer(image).argmax(dim=1) == labels)[labels != IGNORE]
    assert correct.float().mean() > 0.98


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), train=2, val=1, height=32, width=48)


@pytest.mark.parametrize("name", [*LOSSES, "dice+0.5*lovasz_softmax"])
def test_every_loss_trains_a_network_with_an_auxiliary_head(
    scenes: Path, tmp_path: Path, name: str
) -> None:
    recipe = load_recipe(
        None,
        {
            "model.name": "deeplab_v3",
            "model.weights": "none",
            "model.options": {"backbone": "tiny", "auxiliary": True},
            "memory_format": "contiguous",
            "device": "cpu",
            "epochs": 1,
            "batch_size": 2,
            "loss.name": name,
            "loss.class_weights": "median_frequency",
        },
    )
    run = train(scenes, tmp_path / "run", recipe)
    assert math.isfinite(run.history[0]["loss"])
    assert load_recipe(run.folder / "recipe.toml").loss.name == name


# --- Losses of a recipe


def test_the_recipe_schema_names_exactly_the_losses_of_the_registry() -> None:
    assert tuple(LOSSES) == LOSS_NAMES


def test_a_sum_of_losses_applies_its_factors() -> None:
    assert parse_terms("cross_entropy + 0.5*dice") == (
        Term("cross_entropy", 1.0),
        Term("dice", 0.5),
    )
    logits, labels = waves(classes=3)
    expected = cross_entropy(logits, labels) + 0.5 * dice(logits, labels)
    assert torch.allclose(make("cross_entropy+0.5*dice")(logits, labels), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "dise"}, "loss.name: 'dise' in 'dise' is not a loss: allowed are cross_ent"),
        ({"name": "dice+"}, "loss.name: '' in 'dice+'"),
        ({"name": "x*dice"}, "'x' in 'x*dice': a factor must be a number above 0"),
        ({"name": "0*dice"}, "a factor must be a number above 0"),
        ({"name": "dice+2*dice"}, "names a loss twice"),
        ({"name": "dice", "reduction": "sum"}, "only cross_entropy and focal support it"),
        ({"name": "dice", "label_smoothing": 0.1}, "only cross_entropy and ohem support it"),
        ({"label_smoothing": 1}, "loss.label_smoothing = 1"),
        ({"focal_gamma": -1}, "loss.focal_gamma = -1"),
    ],
)
def test_an_invalid_loss_raises_a_one_line_error(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(None, {f"loss.{key}": value for key, value in settings.items()})
    assert message in str(caught.value)
    assert len(caught.value.problems) == 1


def test_class_weights_must_fit_the_classes() -> None:
    assert make_class_weights("none", np.array([1, 2])) is None
    with pytest.raises(InputError, match="give 3"):
        make_class_weights((1.0, 2.0), np.array([1, 2, 3]))
