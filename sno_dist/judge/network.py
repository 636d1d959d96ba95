"""The ResNet-18 of the judge, with a stem that suits the size of its images.

transformers, most of what a rank would read as it starts, is read when a judge is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import ResNetForImageClassification

__all__ = ["Form", "ResNet18"]

SMALL = 64
"""Below this height or width a stem that divides both by 4 would leave too little to see."""
MEDIUM = 32
"""From this height and width on, the first stage halves: a quarter of the cost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """What a network is built from.

    Args:
        shape: Channels, height and width of an image.
        classes: Number of distributions it tells apart.
        width: Channels of the first of four stages; they double from stage to stage.
    """

    shape: tuple[int, int, int]
    classes: int
    width: int

    @property
    def features(self) -> int:
        """Entries of the pooled features."""
        return 8 * self.width


class ResNet18(nn.Module):
    """Two basic blocks in each of four stages, pooled features and a linear head.

    Args:
        form: Shape of the images, number of classes and width.
    """

    def __init__(self, form: Form) -> None:
        from transformers import ResNetConfig, ResNetForImageClassification

        super().__init__()
        channels, height, width = form.shape
        side = min(height, width)
        self.net = ResNetForImageClassification(
            ResNetConfig(
                num_channels=channels,
                embedding_size=form.width,
                hidden_sizes=[form.width * scale for scale in (1, 2, 4, 8)],
                depths=[2, 2, 2, 2],
                layer_type="basic",
                downsample_in_first_stage=MEDIUM <= side < SMALL,
                num_labels=form.classes,  # pyright: ignore[reportCallIssue]
            )
        )
        if side < SMALL:
            _shrink_stem(self.net, channels, form.width)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised images (B, C, H, W) -> features (B, 8 width) and logits (B, classes)."""
        features = self.net.resnet(images).pooler_output.flatten(1)
        return features, self.net.classifier(features)


def _shrink_stem(net: ResNetForImageClassification, channels: int, width: int) -> None:
    """The CIFAR form, which the configuration cannot say: 3 x 3, stride 1, no pooling."""
    stem = net.resnet.embedder
    convolution = nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    stem.embedder.convolution = convolution
    stem.pooler = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
