"""Times training steps of PyTorch for scripts/bench-engine.

Reads one JSON object per line: {"net", "threads", "layout": "nchw" or "nhwc", "seconds", "cpu"}; answers each with one:
{"ms": median of a step with Adam at batch 64 (with cpu: mean processor time), "steps"}.
"""
import ctypes
import json
import statistics
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

BATCH = 64


def separable(c):
    return [nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False), nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c), nn.ReLU()]


class Pad(nn.Module):
    def __init__(self, *pad):
        super().__init__()
        self.pad = pad

    def forward(self, x):
        return F.pad(x, self.pad)


class Block(nn.Module):
    """A stack of resnet-8."""

    def __init__(self, i, o, stride):
        super().__init__()
        self.a = nn.Sequential(Pad(0, 1, 0, 1) if stride == 2 else nn.Identity(), nn.Conv2d(i, o, 3, stride, padding=0 if stride == 2 else 1), nn.BatchNorm2d(o), nn.ReLU(),
                               nn.Conv2d(o, o, 3, padding=1), nn.BatchNorm2d(o))
        self.b = nn.Conv2d(i, o, 1, stride) if stride == 2 else nn.Identity()

    def forward(self, x):
        return F.relu(self.a(x) + self.b(x))


NETS = {
    "seed-cnn": ((3, 32, 32), lambda: nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(64, 64, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, 10))),
    "mlp-784-128-10": ((784,), lambda: nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))),
    "resnet-8": ((3, 32, 32), lambda: nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))),
    "ds-cnn": ((1, 49, 10), lambda: nn.Sequential(
        Pad(1, 1, 4, 5), nn.Conv2d(1, 64, (10, 4), 2, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.Dropout(0.2), *separable(64), *separable(64), *separable(64),
        *separable(64), nn.Dropout(0.4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))),
}


def stepper(net, layout):
    shape, make = NETS[net]
    torch.manual_seed(1)
    m, x, y = make().train(), torch.randn(BATCH, *shape), torch.arange(BATCH) % 10
    if layout == "nhwc":
        m, x = m.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    o, loss_of = torch.optim.Adam(m.parameters()), nn.CrossEntropyLoss()

    def step():
        o.zero_grad()
        loss = loss_of(m(x), y)
        loss.backward()
        o.step()
        loss.item()

    return step


try:  # PyTorch's own setting does not reach OpenBLAS; Debian's plain BLAS is no match for anything
    set_blas_threads = ctypes.CDLL("libopenblas.so.0").openblas_set_num_threads
except (OSError, AttributeError):
    print("engine: PyTorch without OpenBLAS (libopenblas0-pthread): its fully connected layers are slow", file=sys.stderr)

    def set_blas_threads(_):
        pass


print(json.dumps({"version": torch.__version__}), flush=True)
for line in sys.stdin:
    q = json.loads(line)
    torch.set_num_threads(q["threads"])
    set_blas_threads(q["threads"])
    step = stepper(q["net"], q["layout"])  # anew: gradients of a network that knows its one batch become denormal, and slow
    for _ in range(3):
        step()
    times, end, cpu = [], time.perf_counter() + q["seconds"], time.process_time()
    while not times or time.perf_counter() < end:
        t = time.perf_counter()
        step()
        times.append(time.perf_counter() - t)
    ms = (time.process_time() - cpu) / len(times) if q["cpu"] else statistics.median(times)
    print(json.dumps({"ms": ms * 1e3, "steps": len(times)}), flush=True)
