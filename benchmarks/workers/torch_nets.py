"""The contestant of PyTorch: the same nets in usual PyTorch code."""

from __future__ import annotations

from typing import Any

import torch
from serve import Work, arguments, serve
from torch import nn

STAGES: dict[str, tuple[int, ...]] = {
    "A": (1, 1, 2, 2, 2),
    "D": (2, 2, 3, 3, 3),
    "E": (2, 2, 4, 4, 4),
}
WIDTHS = (64, 128, 256, 512, 512)


def vgg(name: str) -> tuple[Any, int, int]:
    """The net, the side of its images, and its classes."""
    narrow = name.endswith("/8")
    scale, side, classes = (8, 64, 10) if narrow else (1, 224, 1000)
    layers: list[nn.Module] = []
    channels = 3
    for width, depth in zip(WIDTHS, STAGES[name[0]]):
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width // scale, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width // scale
        layers.append(nn.MaxPool2d(2))
    hidden = 4096 // scale
    layers += [nn.Flatten(), nn.Linear(channels * (side // 32) ** 2, hidden)]
    layers += [nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(hidden, hidden)]
    layers += [nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(hidden, classes)]
    return nn.Sequential(*layers), side, classes


def prepare(args: Any) -> Work:
    """A forward pass, a forward and backward pass, or an iteration with SGD's update."""
    net, side, classes = vgg(args.net)
    images = torch.randn(args.batch, 3, side, side)
    if args.layout == "nhwc":
        net = net.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(0, classes, (args.batch,))
    if args.work == "forward":
        net.eval()

        def forward() -> None:
            with torch.inference_mode():
                torch.softmax(net(images), 1)

        return forward
    criterion = nn.CrossEntropyLoss()
    sgd = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def step() -> None:
        sgd.zero_grad()
        criterion(net(images), labels).backward()
        if args.work == "iteration":
            sgd.step()

    return step


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    name = f"PyTorch {args.layout.upper()}"
    serve(prepare(args), {"name": name, "version": str(torch.__version__)})


if __name__ == "__main__":
    main()
