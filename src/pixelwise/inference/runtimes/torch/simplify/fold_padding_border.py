"""FCN on VGG16 without the arithmetic in its padding (arXiv:1411.4038, section 4.1).

The first convolution pads the image by 100 pixels, so most of an early feature map is a padding
border that no pixel of the image influences. Away from the outermost positions each channel is
constant there. After subtracting this border value, a map is zero around the positions that the
image influences, the image box, and a zero-padded convolution is exact on the box, which grows by
one position. After conv4_3, where the outermost positions come near, the box is added to a map of
border constants that depend on the image size only.
"""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.backbones.vgg import VGG16
from pixelwise.models import Segmenter
from pixelwise.models.fcn import FCNSkipHead

PADDING = 100  # of the first convolution; the numbers below hold for this padding
POOL3, CONV4_3 = 17, 23  # number of VGG16 layers up to pool3, and up to conv4_3 with its ReLU
PERIOD = 8  # the stride of both maps: sizes that differ by it have the same border


def fold_padding_border(model: nn.Module, *, every_size: bool = False) -> nn.Module:
    """Replace the backbone of an FCN on VGG16 with a `BorderFoldedVGG16`, in place.

    Other networks are returned unchanged.

    Args:
        model: Network in evaluation mode.
        every_size: Compute the border constants for all image sizes now, as an export requires,
            instead of when a size first occurs.
    """
    if not (isinstance(model, Segmenter) and isinstance(model.head, FCNSkipHead)):
        return model
    backbone = model.backbone
    if isinstance(backbone, VGG16) and backbone.padding == PADDING:
        folded = BorderFoldedVGG16(backbone, pool3="c3" in model.head.scales)
        if every_size:
            folded.compute_all_constants()
        model.backbone = folded
    return model


class BorderFoldedVGG16(nn.Module):
    """Compute the feature maps c4 and c5 of a VGG16, and optionally c3, for any image size.

    At 500x500 it needs a third fewer multiply-adds.

    Args:
        backbone: The VGG16, whose weights are shared.
        pool3: Whether to return c3, the output of pool3.
    """

    def __init__(self, backbone: VGG16, *, pool3: bool) -> None:
        super().__init__()
        self.backbone = backbone
        box_layers: list[nn.Module] = []
        layers = list(backbone.features)[:CONV4_3]
        device = next(backbone.parameters()).device
        first = layers[0]
        assert isinstance(first, nn.Conv2d)
        # The border value of each map, beginning with the image's zero padding.
        values = [torch.zeros(first.in_channels, dtype=torch.float64, device=device)]
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                # conv1_1 pads by one more than the image's influence, so that boxes begin at even
                # positions when they are pooled.
                box_layers.append(BoxConv(layer, values[-1], padding=2 if box_layers else 3))
                values.append(border_value(layer, values[-1]))
            elif isinstance(layer, nn.MaxPool2d):
                box_layers.append(nn.MaxPool2d(2, stride=2))
        self.to_pool3 = nn.Sequential(*box_layers[:-3])
        self.to_conv4_3 = nn.Sequential(*box_layers[-3:])
        self.pool3 = AddBorder(values[-4], start=10, border=3) if pool3 else None
        self.conv4_3 = AddBorder(values[-1], start=7, border=6)
        self.computed_phases: set[tuple[int, int]] = set()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        height, width = images.shape[2:]
        phases = (self._phase(height), self._phase(width))
        if not torch.compiler.is_exporting():
            self._compute_constants(phases)
        elif len(self.computed_phases) < PERIOD**2:
            raise ValueError("only some border constants are known: simplify with every_size")
        size = (self._map_length(height), self._map_length(width))
        # Pad to 8k + 2, so that boxes end as they begin. The numbers stay positive, where all
        # runtimes agree on integer division.
        below, right = ((n + 5) // PERIOD * PERIOD + 2 - n for n in (height, width))
        box = self.to_pool3(F.pad(images, (0, right, 0, below)))
        maps = {}
        if self.pool3 is not None:
            maps["c3"] = self.pool3(box, size=size, phases=phases)
        x = self.conv4_3(self.to_conv4_3(box), size=size, phases=phases)
        pool4, *stage5 = list(self.backbone.features)[CONV4_3:]
        maps["c4"] = x = pool4(x)
        for layer in stage5:
            x = layer(x)
        maps["c5"] = self.backbone.fc7(x, image=(height, width))
        return maps

    def compute_all_constants(self) -> None:
        """Compute the border constants for every image size. Takes seconds."""
        for phases in product(range(PERIOD), range(PERIOD)):
            self._compute_constants(phases)

    @torch.no_grad()
    def _compute_constants(self, phases: tuple[int, int]) -> None:
        """Compute the border constants for all sizes with these phases.

        They are read from the maps of a zero image, which are all border, at the smallest size
        whose maps have a middle.
        """
        # On the meta device only map sizes are wanted.
        if phases in self.computed_phases or self.conv4_3.constants.is_meta:
            return
        height, width = (PERIOD * (2 * self.conv4_3.border + 1) + phase for phase in phases)
        conv1_1, *layers = list(self.backbone.features)[:CONV4_3]
        assert isinstance(conv1_1, nn.Conv2d)
        assert conv1_1.bias is not None
        x = conv1_1.bias.view(1, -1, 1, 1).repeat(1, 1, height, width)
        for number, layer in enumerate(layers, start=2):
            x = layer(x)
            if number == POOL3 and self.pool3 is not None:
                self.pool3.store(x, phases)
        self.conv4_3.store(x, phases)
        self.computed_phases.add(phases)

    def _phase(self, length: int) -> int:
        padded = length + 2 * PADDING - 2
        return padded - padded // PERIOD * PERIOD  # OpenVINO cannot read a modulo in the graph

    def _map_length(self, length: int) -> int:
        """Return the height or width of pool3 and conv4_3 for that of an image."""
        padded = length + 2 * PADDING - 2
        return (padded + PERIOD - 1 if self.backbone.ceil_mode else padded) // PERIOD


class BoxConv(nn.Module):
    """A 3x3 convolution with ReLU between maps from which the border value is subtracted.

    Args:
        layer: The convolution, whose weights are shared.
        before: Border value (C,) of the convolution's input.
        padding: Zero padding on each side.
    """

    value: Tensor

    def __init__(self, layer: nn.Conv2d, before: Tensor, *, padding: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(layer.in_channels, layer.out_channels, 3, padding=padding)
        self.convolution.weight = layer.weight
        self.convolution.bias = nn.Parameter(convolved_value(layer, before).float())
        self.register_buffer("value", border_value(layer, before).float().view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.convolution(x), inplace=True) - self.value


class AddBorder(nn.Module):
    """Add an image box, less its border value, to a map of border constants.

    Args:
        value: Border value (C,) of the map.
        start: First row and column of the box in the map.
        border: Number of rows and columns on each side that the zero padding can influence.
    """

    constants: Tensor

    def __init__(self, value: Tensor, *, start: int, border: int) -> None:
        super().__init__()
        self.start, self.border = start, border
        # Rows of the table: the upper border, one row of the middle, and the lower border for each
        # phase. Columns likewise.
        length = border + 1 + PERIOD * border
        self.register_buffer("constants", value.float().view(-1, 1, 1).repeat(1, length, length))

    def forward(self, box: Tensor, *, size: tuple[int, int], phases: tuple[int, int]) -> Tensor:
        """Return the map (B, C, H, W).

        Args:
            box: Image box (B, C, h, w).
            size: Height and width of the map.
            phases: Phases of the image's height and width.
        """
        rows, columns = (
            self._table_indices(torch.arange(length, device=box.device), length, phase)
            for length, phase in zip(size, phases, strict=True)
        )
        constants = self.constants.index_select(1, rows).index_select(2, columns)
        below, right = (
            length - self.start - box_length
            for length, box_length in zip(size, box.shape[2:], strict=True)
        )
        return F.pad(box, (self.start, right, self.start, below)) + constants

    def store(self, x: Tensor, phases: tuple[int, int]) -> None:
        """Store the constants of the map (1, C, H, W) of a zero image with these phases."""
        rows, columns = (
            self._table_indices(torch.arange(length, device=x.device), length, phase)
            for length, phase in zip(x.shape[2:], phases, strict=True)
        )
        self.constants[:, rows[:, None], columns] = x[0]

    def _table_indices(self, positions: Tensor, length: int, phase: int) -> Tensor:
        """Return the index in the table of constants for each row, or column, of a map."""
        beyond = positions - (length - self.border)
        lower = self.border + 1 + phase * self.border + beyond
        return torch.where(beyond >= 0, lower, positions.clamp(max=self.border))


def convolved_value(layer: nn.Conv2d, before: Tensor) -> Tensor:
    """Return the convolution (C,) of a map that is constant per channel, in float64."""
    assert layer.bias is not None
    return layer.bias.detach().double() + layer.weight.detach().double().sum(dim=(2, 3)) @ before


def border_value(layer: nn.Conv2d, before: Tensor) -> Tensor:
    """Return the border value (C,) after a convolution and its ReLU, in float64."""
    return convolved_value(layer, before).relu()
