"""The frame of FCN on VGG16 (arXiv:1411.4038, section 4.1): maps only where the image reaches.

The first convolution pads the image by 100, so that most of an early map is a frame that no pixel
reaches. Away from its outer border, each channel has one value there. A map less that value is zero
all around what the image reaches, and a convolution padded with zeros is exact on that box, which
grows by one position. After conv4_3, where the outer border comes near, the box is set into a map
of the frame's constants, which depend on the image's size alone.
"""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.backbones.vgg import VGG16
from pixelwise.models import Segmenter
from pixelwise.models.fcn import FCNSkipHead

PADDING = 100  # of the first convolution: the numbers below hold for this one
POOL3, CONV4_3 = 17, 23  # how many of VGG16's layers make pool3, and conv4_3 with its ReLU
PERIOD = 8  # the stride of both maps: sizes that differ by it have the same border


def fold_frame(model: nn.Module, *, every_size: bool = False) -> nn.Module:
    """`model`, in evaluation mode, with a `FramedVGG16` where it is an FCN on VGG16; it is changed.

    every_size: the constants of all sizes are worked out now, as an export needs them, and not when
    an image first asks for them. Other networks are given back as they are.
    """
    if not (isinstance(model, Segmenter) and isinstance(model.head, FCNSkipHead)):
        return model
    backbone = model.backbone
    if isinstance(backbone, VGG16) and backbone.padding == PADDING:
        framed = FramedVGG16(backbone, fine="c3" in model.head.scales)
        if every_size:
            framed.learn_every_size()
        model.backbone = framed
    return model


class FramedVGG16(nn.Module):
    """(B, 3, H, W) to the maps c4 and c5 of `backbone`, and with `fine` c3, for any H and W.

    At 500x500 a third of the multiply-adds is left out.
    """

    def __init__(self, backbone: VGG16, *, fine: bool) -> None:
        super().__init__()
        self.backbone = backbone
        boxed: list[nn.Module] = []
        layers = list(backbone.features)[:CONV4_3]
        device = next(backbone.parameters()).device
        first = layers[0]
        assert isinstance(first, nn.Conv2d)
        values = [  # around the image
            torch.zeros(first.in_channels, dtype=torch.float64, device=device)
        ]
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                # conv1_1 by one more than the image reaches: at pools, boxes begin at even places.
                boxed.append(BoxedConvolution(layer, values[-1], padding=2 if boxed else 3))
                values.append(uniform_value(layer, values[-1]))
            elif isinstance(layer, nn.MaxPool2d):
                boxed.append(nn.MaxPool2d(2, stride=2))
        self.to_pool3 = nn.Sequential(*boxed[:-3])
        self.to_conv4_3 = nn.Sequential(*boxed[-3:])
        self.pool3 = Frame(values[-4], begin=10, border=3) if fine else None
        self.conv4_3 = Frame(values[-1], begin=7, border=6)
        self.learned: set[tuple[int, int]] = set()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        height, width = images.shape[2:]
        phases = (self._phase(height), self._phase(width))
        if not torch.compiler.is_exporting():
            self._learn(phases)
        elif len(self.learned) < PERIOD**2:
            raise ValueError("constants are known for some sizes only: simplify with every_size")
        sides = (self._side(height), self._side(width))
        # To 8k + 2, so that boxes end as they begin. Numbers stay above zero, where all runtimes
        # divide alike.
        below, right = ((side + 5) // PERIOD * PERIOD + 2 - side for side in (height, width))
        box = self.to_pool3(F.pad(images, (0, right, 0, below)))
        maps = {}
        if self.pool3 is not None:
            maps["c3"] = self.pool3(box, sides=sides, phases=phases)
        x = self.conv4_3(self.to_conv4_3(box), sides=sides, phases=phases)
        pool4, *stage5 = list(self.backbone.features)[CONV4_3:]
        maps["c4"] = x = pool4(x)
        for layer in stage5:
            x = layer(x)
        maps["c5"] = self.backbone.fc7(x, image=(height, width))
        return maps

    def learn_every_size(self) -> None:
        """Work out the constants for every size; takes seconds."""
        for phases in product(range(PERIOD), range(PERIOD)):
            self._learn(phases)

    @torch.no_grad()
    def _learn(self, phases: tuple[int, int]) -> None:
        """Work out the constants of the sizes with these phases, from the smallest frame that has
        a middle; an image of zeros is all frame."""
        if phases in self.learned or self.conv4_3.constants.is_meta:  # there sizes alone are asked
            return
        height, width = (PERIOD * (2 * self.conv4_3.border + 1) + phase for phase in phases)
        conv1_1, *layers = list(self.backbone.features)[:CONV4_3]
        assert isinstance(conv1_1, nn.Conv2d)
        assert conv1_1.bias is not None
        x = conv1_1.bias.view(1, -1, 1, 1).repeat(1, 1, height, width)
        for number, layer in enumerate(layers, start=2):
            x = layer(x)
            if number == POOL3 and self.pool3 is not None:
                self.pool3.learn(x, phases)
        self.conv4_3.learn(x, phases)
        self.learned.add(phases)

    def _phase(self, side: int) -> int:
        frame = side + 2 * PADDING - 2
        return frame - frame // PERIOD * PERIOD  # OpenVINO reads no modulo of an exported graph

    def _side(self, side: int) -> int:
        """Of pool3 and conv4_3, for an image's height or width."""
        frame = side + 2 * PADDING - 2
        return (frame + PERIOD - 1 if self.backbone.ceil_mode else frame) // PERIOD


class BoxedConvolution(nn.Module):
    """A 3x3 convolution and its ReLU, between maps that are less their uniform values.

    before: the values (C,) of the map that it is given.
    """

    value: Tensor

    def __init__(self, layer: nn.Conv2d, before: Tensor, *, padding: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(layer.in_channels, layer.out_channels, 3, padding=padding)
        self.convolution.weight = layer.weight
        self.convolution.bias = nn.Parameter(sum_of_taps(layer, before).float())
        self.register_buffer("value", uniform_value(layer, before).float().view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.convolution(x), inplace=True) - self.value


class Frame(nn.Module):
    """Sets a box, less its uniform value, into a map of the frame's constants.

    value: (C,) the uniform values. begin: the first row and column of the box in the map.
    border: how many rows and columns the zeros beyond the frame reach, at most, on each side.
    """

    constants: Tensor

    def __init__(self, value: Tensor, *, begin: int, border: int) -> None:
        super().__init__()
        self.begin, self.border = begin, border
        # Rows: those of the upper border, one of the middle, those of the lower border for each
        # phase; columns likewise.
        side = border + 1 + PERIOD * border
        self.register_buffer("constants", value.float().view(-1, 1, 1).repeat(1, side, side))

    def forward(self, box: Tensor, *, sides: tuple[int, int], phases: tuple[int, int]) -> Tensor:
        """box: (B, C, h, w). sides: of the whole map, (B, C, H, W). phases: of the image's size."""
        rows, columns = (
            self._places(torch.arange(side, device=box.device), side, phase)
            for side, phase in zip(sides, phases, strict=True)
        )
        constants = self.constants.index_select(1, rows).index_select(2, columns)
        below, right = (
            side - self.begin - length for side, length in zip(sides, box.shape[2:], strict=True)
        )
        return F.pad(box, (self.begin, right, self.begin, below)) + constants

    def learn(self, frame: Tensor, phases: tuple[int, int]) -> None:
        """frame: (1, C, H, W), the map of an image of zeros whose size has these phases."""
        rows, columns = (
            self._places(torch.arange(side, device=frame.device), side, phase)
            for side, phase in zip(frame.shape[2:], phases, strict=True)
        )
        self.constants[:, rows[:, None], columns] = frame[0]

    def _places(self, positions: Tensor, side: int, phase: int) -> Tensor:
        """Where the table of constants has those of each row, or column, of a map."""
        beyond = positions - (side - self.border)
        lower = self.border + 1 + phase * self.border + beyond
        return torch.where(beyond >= 0, lower, positions.clamp(max=self.border))


def sum_of_taps(layer: nn.Conv2d, before: Tensor) -> Tensor:
    """(C,) float64: what a convolution makes of a map that has the values `before` everywhere."""
    assert layer.bias is not None
    return layer.bias.detach().double() + layer.weight.detach().double().sum(dim=(2, 3)) @ before


def uniform_value(layer: nn.Conv2d, before: Tensor) -> Tensor:
    """The same after ReLU."""
    return sum_of_taps(layer, before).relu()
