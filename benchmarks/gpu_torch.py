"""PyTorch's contestants: the same layers and nets with cuDNN, in usual PyTorch code."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import gpu_cases
from gpu_cases import Mode
from vgg_nets import specification

from prototxt_gen.vgg import Convolution

Work = Callable[[], object]


def find_torch(device: str) -> Any | None:
    """PyTorch, if it is installed and supports the device; a dry run uses its CPU."""
    try:
        import torch
    except ImportError:
        return None
    return torch if device == "emu" or torch.cuda.is_available() else None


class Torch:
    """Makes contestants in one mode; on the CPU in a dry run."""

    def __init__(self, torch: Any, device: str, mode: Mode) -> None:
        self.torch, self.mode = torch, mode
        self.place = "cpu" if device == "emu" else "cuda"
        tf32 = mode.precision == "tf32"
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.manual_seed(0)

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.place == "cuda":
            self.torch.cuda.synchronize()

    def profiled(self, work: Work) -> dict[str, float]:
        """The device kernels of a work and their total times; on a CPU its ops. Units: us."""
        profiler = self.torch.profiler
        work()
        self.synchronize()
        with profiler.profile() as profile:
            work()
            self.synchronize()
        device = "device_time_total" if self.place == "cuda" else "cpu_time_total"
        times = {str(event.key): getattr(event, device, 0.0) for event in profile.key_averages()}
        return {name: float(value) for name, value in times.items() if value}

    def forget(self) -> None:
        """Free the device memory that PyTorch caches."""
        if self.place == "cuda":
            self.torch.cuda.empty_cache()

    def convolution(self, layer: tuple[int, int, int], batch: int) -> dict[str, Work]:
        """The three passes of a layer, separately; with operands in bf16 if the mode is bf16."""
        torch, geom = self.torch, gpu_cases.geometry(layer, batch)
        kind = torch.bfloat16 if self.mode.precision == "bf16" else torch.float32
        x, dy, w = (
            self._laid_out(torch.randn(shape, device=self.place, dtype=kind))
            for shape in (geom.in_shape, geom.out_shape, geom.weight_shape)
        )
        b = torch.randn(geom.k, device=self.place, dtype=kind)

        def backward(data: bool) -> Work:
            output_mask = [data, not data, False]
            settings = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1, output_mask)
            return lambda: torch.ops.aten.convolution_backward(dy, x, w, None, *settings)

        return {
            "forward": lambda: torch.nn.functional.conv2d(x, w, b, padding=1),
            "backward data": backward(True),
            "backward weight": backward(False),
        }

    def step(self, kind: str, net: str, batch: int) -> Work:
        """A step of a complete net."""
        return (self._training if kind == "training" else self._inference)(net, batch)

    def _training(self, net: str, batch: int) -> Work:
        """An iteration with SGD's update."""
        torch, spec = self.torch, specification(net)
        model, images = self._net(spec, batch)
        labels = torch.randint(0, spec.classes, (batch,), device=self.place)
        criterion = torch.nn.CrossEntropyLoss()
        sgd = torch.optim.SGD(
            model.parameters(), lr=1e-5, momentum=0.9, weight_decay=5e-4, foreach=True
        )

        def step() -> None:
            sgd.zero_grad(set_to_none=True)
            with self._cast():
                loss = criterion(model(images), labels)
            loss.backward()
            sgd.step()

        return step

    def _inference(self, net: str, batch: int) -> Work:
        """A forward pass."""
        torch = self.torch
        model, images = self._net(specification(net), batch)
        model.eval()

        def forward() -> None:
            with torch.inference_mode(), self._cast():
                torch.softmax(model(images), 1)

        return forward

    def _net(self, spec: Any, batch: int) -> tuple[Any, Any]:
        # The weights are drawn on the device, since a CPU takes seconds for them.
        with self.torch.device(self.place):
            return self._built(spec, batch)

    def _built(self, spec: Any, batch: int) -> tuple[Any, Any]:
        nn, channels, layers = self.torch.nn, 3, list[Any]()
        for stage in spec.stages:
            for unit in stage:
                if isinstance(unit, Convolution):
                    width = spec.scaled(unit.width)
                    layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                    channels = width
            layers.append(nn.MaxPool2d(2))
        features = channels * (spec.crop // 2 ** len(spec.stages)) ** 2
        layers.append(nn.Flatten())
        for width in spec.fc:
            hidden = spec.scaled(width)
            layers += [nn.Linear(features, hidden), nn.ReLU(inplace=True), nn.Dropout(0.5)]
            features = hidden
        layers.append(nn.Linear(features, spec.classes))
        images = self.torch.randn(batch, 3, spec.crop, spec.crop)
        return self._laid_out(nn.Sequential(*layers)), self._laid_out(images)

    def _laid_out(self, thing: Any) -> Any:
        if not self.mode.channels_last:
            return thing
        return thing.to(memory_format=self.torch.channels_last)

    def _cast(self) -> Any:
        if self.mode.precision != "bf16":
            return contextlib.nullcontext()
        return self.torch.autocast(self.place, dtype=self.torch.bfloat16)
