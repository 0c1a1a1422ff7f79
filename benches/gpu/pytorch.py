"""PyTorch's half of the checks on a GPU: answers questions on its standard input, a line of JSON each, as engraft's half does.

    {"do": "about"}
    {"do": "make", "folder": PATH, "network": NAME, "steps": 20, "batch": 128, "before": 30, "lr": 0.01}
        weights after some steps, and the batches that follow, for "losses"
    {"do": "losses", "network": NAME, "weights": PATH, "batches": PATH, "lr": 0.01, "precision": "f32"}
    {"do": "step", "network": NAME, "batch": 128, "precision": "tf32", "how": "eager", "channels_last": false, "steps": N}
    {"do": "forget"}    frees all networks

A step is forward, backward and SGD with momentum and weight decay on a batch that lies on the device. `how` is one of: `eager`;
`graph`, the whole step captured as one CUDA graph; `compiled`, torch.compile in the mode reduce-overhead with the optimizer
beside it; `compiled graph`, torch.compile in its default mode and then the whole step captured. The optimizer is the fused one,
cuDNN picks its algorithms by measuring (`cudnn.benchmark`), bf16 is autocast. Times are those of CUDA events around five groups
of steps. Without a GPU all runs on the processor, which is for testing the scripts alone.
"""

import contextlib
import itertools
import json
import logging
import os
import pathlib
import sys
import time

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch.nn import functional

import networks

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
GROUPS = 5


def set_precision(precision):
    tf32 = precision != "f32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32


def mixed(precision):
    return torch.autocast(DEVICE, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def sgd(model, lr):
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4, fused=True)


class Training:
    """A network that learns one batch again and again."""

    def __init__(self, network, batch, precision, how, channels_last):
        set_precision(precision)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model = networks.make(network).to(DEVICE).to(memory_format=layout)
        images = torch.randn(batch, *networks.image_shape(network), generator=torch.Generator().manual_seed(1))
        self.images = images.to(DEVICE).contiguous(memory_format=layout)
        self.labels = (torch.arange(batch) % networks.CLASSES).to(DEVICE)
        self.precision, self.optimizer, self.graph = precision, sgd(self.model, 1e-3), None
        self.loss = self.whole_loss
        if how.startswith("compiled"):
            mode = "reduce-overhead" if how == "compiled" else "default"
            self.loss = torch.compile(self.whole_loss, mode=mode)
        self.overhead_is_reduced = how == "compiled"
        if how.endswith("graph"):
            self.capture()
        else:
            for _ in range(6):
                self.step()

    def whole_loss(self, images, labels):
        with mixed(self.precision):
            return functional.cross_entropy(self.model(images), labels)

    def step(self):
        if self.overhead_is_reduced:
            torch.compiler.cudagraph_mark_step_begin()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(self.images, self.labels).backward()
        self.optimizer.step()

    def capture(self):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(4):
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        self.optimizer.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss(self.images, self.labels).backward()
            self.optimizer.step()

    def seconds(self, steps):
        """Seconds of a step in each of five groups."""
        set_precision(self.precision)
        run, each = self.step if self.graph is None else self.graph.replay, max(1, steps // GROUPS)
        if DEVICE == "cpu":
            stamps = [time.perf_counter()]
            for _ in range(GROUPS):
                for _ in range(each):
                    run()
                stamps.append(time.perf_counter())
            return [(after - before) / each for before, after in itertools.pairwise(stamps)]
        events = [torch.cuda.Event(enable_timing=True) for _ in range(GROUPS + 1)]
        events[0].record()
        for event in events[1:]:
            for _ in range(each):
                run()
            event.record()
        torch.cuda.synchronize()
        return [before.elapsed_time(after) / each / 1000 for before, after in itertools.pairwise(events)]


class Pytorch:
    def __init__(self):
        self.trainings = {}

    def about(self, _):
        found = {"torch": torch.__version__, "cuda": torch.version.cuda, "device": DEVICE}
        if DEVICE == "cuda":
            found |= {"cudnn": torch.backends.cudnn.version(), "name": torch.cuda.get_device_name()}
        return found

    def make(self, question):
        name, before, folder = question["network"], question["before"], pathlib.Path(question["folder"])
        x, y = networks.examples(name, before + question["steps"], question["batch"])
        model = networks.make(name).to(DEVICE)
        self.train(model, x[:before], y[:before], question["lr"], "f32")
        weights = {key: value.cpu().numpy() for key, value in model.state_dict().items()}
        x, y = x[before:], y[before:]
        paths = {part: str(folder / f"{name}-{question['steps']}-{part}.safetensors") for part in ("weights", "batches")}
        save_file(weights, paths["weights"])
        save_file({"x": x.numpy(), "y": y.numpy().astype(np.float32)}, paths["batches"])
        return paths

    def losses(self, question):
        model, batches = networks.make(question["network"]).to(DEVICE), load_file(question["batches"])
        model.load_state_dict({key: torch.from_numpy(value) for key, value in load_file(question["weights"]).items()})
        x, y = torch.from_numpy(batches["x"]), torch.from_numpy(batches["y"]).long()
        return {"losses": self.train(model, x, y, question["lr"], question["precision"])}

    @staticmethod
    def train(model, x, y, lr, precision):
        """The loss of a step on each batch."""
        set_precision(precision)
        torch.backends.cudnn.benchmark = False
        optimizer, losses = sgd(model, lr), []
        for images, labels in zip(x, y, strict=True):
            optimizer.zero_grad(set_to_none=True)
            with mixed(precision):
                loss = functional.cross_entropy(model(images.to(DEVICE)), labels.to(DEVICE))
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses).tolist()

    def step(self, question):
        key = tuple(question[part] for part in ("network", "batch", "precision", "how", "channels_last"))
        if key not in self.trainings:
            torch.backends.cudnn.benchmark = True
            self.trainings[key] = Training(*key)
        return {"seconds": self.trainings[key].seconds(question["steps"])}

    def forget(self, _):
        self.trainings.clear()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        return {}


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What libraries print is no answer.
    half = Pytorch()
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = getattr(half, question["do"])(question)
        except Exception as error:
            logging.getLogger("pytorch").exception("%s", question)
            text = str(error).strip().splitlines() or [""]
            answer = {"error": f"{type(error).__name__}: {text[0][:300]}"}
        print(json.dumps(answer), file=answers, flush=True)
        if "CUDA error" in answer.get("error", ""):
            break  # Nothing works after one. The next question starts this program anew.


if __name__ == "__main__":
    main()
