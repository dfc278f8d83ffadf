"""The network, and how a picture becomes its input."""

from torch import Tensor, nn

preprocessing = {
    "size": (16, 16),
    "mode": "RGB",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
    "classes": ("dark", "light"),
}


class Brightness(nn.Module):
    """Two convolutions and the mean of the map."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.classes = nn.Conv2d(8, 2, 1)
        self.mean = nn.AvgPool2d(8)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, 16, 16) to logits (N, 2)."""
        return self.mean(self.classes(self.features(image).relu())).flatten(1)


def make() -> nn.Module:
    """The network, as the command line makes it."""
    return Brightness()
