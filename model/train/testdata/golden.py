#!/usr/bin/python3
"""Writes golden.json: losses, gradients and a few optimizer steps of small networks, computed by PyTorch.

Usage: /usr/bin/python3 golden.py > golden.json      (made with torch 1.13 of Debian 12)

Weights and inputs are not in the file: the test makes the same ones with fill(). Tensors are channels last and weights
in the layout of package model; layers are described as the test builds them.
"""
import json

import torch
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(0)


def fill(count, number, scale=1.0):
    """The count values of tensor number: a hash of the index, exact in float32, within scale/2 of zero."""
    out = []
    for k in range(count):
        h = (k * 2654435761 + number * 40503 + 97) % 2**32
        h ^= h >> 15
        h = h * 2246822519 % 2**32
        h ^= h >> 13
        out.append(((h >> 8) / 2**24 - 0.5) * scale)
    return torch.tensor(out, dtype=torch.float32)


def conv(out, kernel, stride=1, dilation=1, pad=(0, 0, 0, 0), groups=1, bias=True):
    return dict(kind="conv", out=out, kernel=kernel, stride=stride, dilation=dilation, pad=pad, groups=groups, bias=bias)


def dense(out, bias=True):
    return dict(kind="dense", out=out, bias=bias)


def act(func, alpha=0.0):
    return dict(kind="activation", func=func, alpha=alpha)


def pool(kind, kernel, stride, pad=(0, 0, 0, 0), count_pad=False):
    return dict(kind=kind, kernel=kernel, stride=stride, pad=pad, count_pad=count_pad)


BN = dict(kind="batch-norm", epsilon=1e-3, momentum=0.1)
FLAT = dict(kind="flatten")
RELU = act("relu")


def spatial(pad):  # top, left, bottom, right -> F.pad's order
    return (pad[1], pad[3], pad[0], pad[2])


class Net:
    def __init__(self, case):
        self.case = case
        self.params, self.stats, number = {}, {}, 1
        shape = case["input"]
        self.shapes = []
        with torch.no_grad():  # a dry run finds the shapes
            self.dry = True
            self.number = number
            self.forward(torch.zeros([2] + self.nchw(shape)), True)
            self.dry = False
        for i, l in enumerate(case["layers"]):
            if l["kind"] == "batch-norm":
                c = self.params[f"{i}/scale"].numel()
                self.stats[f"{i}/mean"] = torch.zeros(c)
                self.stats[f"{i}/variance"] = torch.ones(c)

    @staticmethod
    def nchw(shape):
        return [shape[2], shape[0], shape[1]] if len(shape) == 3 else list(shape)

    def param(self, i, name, shape, scale=1.0, plus=0.0):
        key = f"{i}/{name}"
        if key not in self.params:
            n = 1
            for d in shape:
                n *= d
            self.params[key] = (fill(n, self.number, scale) + plus).reshape(shape).requires_grad_(True)
            self.number += 1
        return self.params[key]

    def forward(self, x, training):
        values = {-1: x}
        for i, l in enumerate(self.case["layers"]):
            ins = [values[j] for j in l.get("inputs", [i - 1])]
            values[i] = self.layer(i, l, ins, training)
        return values[len(self.case["layers"]) - 1]

    def layer(self, i, l, ins, training):
        x, kind = ins[0], l["kind"]
        if kind == "conv":
            k = l["kernel"]
            w = self.param(i, "weight", [k, k, x.shape[1] // l["groups"], l["out"]])
            b = self.param(i, "bias", [l["out"]]) if l["bias"] else None
            return F.conv2d(F.pad(x, spatial(l["pad"])), w.permute(3, 2, 0, 1), b, l["stride"], 0, l["dilation"], l["groups"])
        if kind == "dense":
            w = self.param(i, "weight", [x.shape[1], l["out"]])
            b = self.param(i, "bias", [l["out"]]) if l["bias"] else None
            return F.linear(x, w.t(), b)
        if kind == "batch-norm":
            c = x.shape[1]
            scale, shift = self.param(i, "scale", [c], 1.0, 1.0), self.param(i, "shift", [c])
            if self.dry:
                return x
            return F.batch_norm(x, self.stats[f"{i}/mean"], self.stats[f"{i}/variance"], scale, shift, training, l["momentum"], l["epsilon"])
        if kind == "activation":
            f = l["func"]
            if f == "leaky-relu":
                return F.leaky_relu(x, l["alpha"])
            return {"relu": F.relu, "relu6": F.relu6, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "hard-swish": F.hardswish}[f](x)
        if kind == "max-pool":
            return F.max_pool2d(F.pad(x, spatial(l["pad"]), value=float("-inf")), l["kernel"], l["stride"])
        if kind == "avg-pool":
            ones = torch.ones_like(x)
            s = F.avg_pool2d(F.pad(x, spatial(l["pad"])), l["kernel"], l["stride"], divisor_override=1)
            if l["count_pad"]:
                return s / l["kernel"] ** 2
            return s / F.avg_pool2d(F.pad(ones, spatial(l["pad"])), l["kernel"], l["stride"], divisor_override=1)
        if kind == "global-avg-pool":
            return x.mean((2, 3))
        if kind == "flatten":
            return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1) if x.dim() == 4 else x
        if kind == "pad":
            return F.pad(x, spatial(l["pad"]))
        if kind == "softmax":
            return F.softmax(x, 1)
        if kind == "add":
            return x + ins[1]
        if kind == "concat":
            return torch.cat(ins, 1)
        raise ValueError(kind)


def loss_of(case, z, x, labels, teacher):
    o = case["loss"]
    if o["kind"] == "mean-squares":
        return F.mse_loss(z, x)
    hard = F.cross_entropy(z, labels, label_smoothing=o.get("smoothing", 0.0))
    if "temperature" not in o:
        return hard
    t, w = o["temperature"], o["weight"]
    soft = F.kl_div(F.log_softmax(z / t, 1), F.softmax(teacher / t, 1), reduction="batchmean")
    return (1 - w) * hard + w * t * t * soft


def optimizer_of(case, net):
    o = case["optimizer"]
    weights = [p for k, p in net.params.items() if k.endswith("/weight")]
    others = [p for k, p in net.params.items() if not k.endswith("/weight")]
    groups = [dict(params=weights, weight_decay=o.get("decay", 0.0)), dict(params=others, weight_decay=0.0)]
    if o["kind"] == "sgd":
        return torch.optim.SGD(groups, lr=o["rate"], momentum=o.get("momentum", 0.0), nesterov=o.get("nesterov", False))
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[o["kind"]](groups, lr=o["rate"])


def numbers(t):
    return [float(f"{v:.8g}") for v in t.detach().reshape(-1).tolist()]


def run(case):
    net, n = Net(case), case["batch"]
    shape = case["input"]
    size = 1
    for d in shape:
        size *= d
    x = fill(n * size, 0, 4.0).reshape([n] + shape)
    if len(shape) == 3:
        x = x.permute(0, 3, 1, 2)
    opt = optimizer_of(case, net)
    losses, first = [], {}
    for step in range(case["steps"]):
        opt.zero_grad()
        z = net.forward(x, True)
        labels = torch.arange(n) * 7 % z.shape[1]
        teacher = fill(z.numel(), 99, 6.0).reshape(z.shape)
        loss = loss_of(case, z, x, labels, teacher)
        loss.backward()
        if step == 0:
            first = {k: numbers(p.grad) for k, p in net.params.items()}
        clip = case["optimizer"].get("clip", 0.0)
        if clip:
            torch.nn.utils.clip_grad_norm_(list(net.params.values()), clip)
        opt.step()
        losses.append(loss.item())
    with torch.no_grad():
        outputs = net.forward(x, False)
    case["losses"], case["gradients"], case["outputs"] = [float(f"{v:.8g}") for v in losses], first, numbers(outputs)
    case["after"] = {k: numbers(t) for k, t in list(net.params.items()) + list(net.stats.items())}
    return case


CE = dict(kind="cross-entropy")
ADAM = dict(kind="adam", rate=0.01)
IMAGE = [7, 6, 2]


def case(name, layers, input=IMAGE, batch=5, loss=CE, optimizer=ADAM, steps=3):
    return dict(name=name, input=input, batch=batch, layers=layers, loss=loss, optimizer=optimizer, steps=steps)


MLP = [dense(6), act("tanh"), dense(4)]
CASES = [
    case("conv", [conv(4, 3), RELU, conv(3, 3, stride=2, pad=(1, 0, 1, 2), bias=False), RELU, FLAT, dense(3)]),
    case("grouped, dilated", [conv(4, 1), conv(6, 2, dilation=2, groups=2), RELU, FLAT, dense(3)]),
    # No biases before normalisation: their gradient is zero but for rounding, which Adam would blow up.
    case("depthwise", [conv(4, 3, pad=(1, 1, 1, 1), bias=False), BN, RELU, conv(4, 3, stride=2, pad=(1, 1, 1, 1), groups=4, bias=False),
                       BN, act("relu6"), conv(5, 1, bias=False), BN, RELU, dict(kind="global-avg-pool"), dense(3)]),
    case("pools", [conv(4, 3, pad=(1, 1, 1, 1)), RELU, pool("max-pool", 2, 2), conv(4, 1), pool("max-pool", 2, 1, pad=(1, 0, 0, 1)),
                   pool("avg-pool", 2, 1, pad=(0, 1, 1, 0)), pool("avg-pool", 2, 2, pad=(1, 0, 0, 0), count_pad=True), FLAT, dense(3)]),
    case("activations", [conv(3, 1), act("leaky-relu", 0.1), conv(3, 1), act("sigmoid"), conv(3, 1), act("hard-swish"), conv(3, 1), act("tanh"),
                         dict(kind="pad", pad=(1, 0, 2, 1)), FLAT, dense(4), dict(kind="softmax"), dense(3)]),
    case("residual, concat", [conv(3, 1), RELU, conv(3, 3, pad=(1, 1, 1, 1), bias=False), BN, dict(kind="add", inputs=[3, 1]), RELU, conv(2, 1),
                              dict(kind="concat", inputs=[6, 5]), dict(kind="global-avg-pool"), dense(3)]),
    case("smoothing, adamw", MLP, input=[5], loss=dict(kind="cross-entropy", smoothing=0.2), optimizer=dict(kind="adamw", rate=0.02, decay=0.1)),
    case("distillation, sgd", MLP, input=[5], loss=dict(kind="cross-entropy", smoothing=0.1, temperature=3.0, weight=0.6),
         optimizer=dict(kind="sgd", rate=0.1, momentum=0.9, decay=0.01)),
    case("nesterov, clip", MLP, input=[5], optimizer=dict(kind="sgd", rate=0.1, momentum=0.8, nesterov=True, clip=0.3), steps=4),
    case("mean squares, decay", [dense(3), RELU, dense(5)], input=[5], loss=dict(kind="mean-squares"), optimizer=dict(kind="adam", rate=0.01, decay=0.1)),
]

print(json.dumps([run(c) for c in CASES], separators=(",", ":")).replace('{"name"', '\n{"name"'))
