"""Members trained to the end beside PyTorch's, from the same weights and in the same order of examples.

    python benches/accuracy.py      # an MLP on MNIST and LeNet on CIFAR-10, from three seeds

Needs torch and pillow, and the data sets of ../shared/data. What engraft draws from a seed, draws.py draws again, so that PyTorch
gets the same first weights and the same batches; `--own` lets PyTorch draw for itself as well. Both measure the validation and
the test examples after every epoch; kept is the first epoch with the best validation accuracy. Ours and PyTorch take turns, on
two threads; times are of everything, once by the clock and once by the processor time of all threads.
"""

import argparse
import json
import math
import pathlib
import re
import resource
import subprocess
import tempfile
import time

import draws
import numpy as np
import torch
from beside import LeNet, Mlp, cifar, mnist, normalised
from torch import nn

THREADS, BATCH, LR, MOMENTUM = 2, 256, 0.01, 0.9
TASKS = {
    "mnist-mlp": (mnist, lambda: Mlp(784), "mlp:512,512,512", (0.1307, 0.3081), 10),
    "cifar-lenet": (cifar, LeNet, "lenet", (0.5, 0.5), 15),
}


def split(parts):
    """Nine tenths to train on, a tenth to validate on, and the test examples."""
    (images, labels), test = parts
    places = np.random.default_rng(0).permutation(len(labels))
    held_out, kept = np.sort(places[: len(labels) // 10]), np.sort(places[len(labels) // 10 :])
    return {"train": (images[kept], labels[kept]), "validation": (images[held_out], labels[held_out]), "test": test}


class Run:
    """A finished training: accuracies in percent, one for each epoch from 0 on."""

    def __init__(self, losses, validation, test, seconds):
        best = max(range(len(validation)), key=lambda epoch: validation[epoch])
        self.losses, self.final, self.kept, self.seconds = losses, test[-1], test[best], seconds

    def __str__(self):
        clock, cpu = self.seconds
        losses = " ".join(f"{loss:.4f}" for loss in self.losses)
        return (f"test {self.final:.2f} % at the end, {self.kept:.2f} % of the epoch that is kept; "
                f"{clock:.1f} s, processor {cpu:.1f} s; losses {losses}")


def ours(program, folder, network, seed, epochs, normalize):
    mean, std = ([value] for value in normalize)
    files = {"name": "train.npz", "validation": "validation.npz", "test": "test.npz"}
    recipe = {
        "network": network, "seeds": [seed],
        "dataset": {**files, "normalize": {"mean": mean, "std": std}},
        "train": {
            "epochs": epochs, "batch_size": BATCH, "schedule": "cosine",
            "optimizer": {"name": "sgd", "lr": LR, "momentum": MOMENTUM},
        },
    }
    (folder / "recipe.json").write_text(json.dumps(recipe))
    command = [program, "train", "--recipe", "recipe.json", "--out", "members", "--threads", str(THREADS)]
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    told = subprocess.run(command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, check=True).stderr
    clock, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    losses = [float(loss) for loss in re.findall(r"epoch +\d+ +loss ([\d.]+)", told)]
    scores = [[float(score) for score in re.findall(rf"{part} ([\d.]+) %", told)] for part in ("validation", "test")]
    assert len(losses) == epochs and len(scores[1]) == epochs + 1, told
    return Run(losses, *scores, (clock, cpu))


def torchs(make, data, seed, epochs, normalize, own):
    start, cpu = time.perf_counter(), time.process_time()
    torch.manual_seed(seed)
    model, parts = make(), {name: normalised(part, *normalize) for name, part in data.items()}
    if not own:
        drawn = draws.weights([(name, tuple(value.shape)) for name, value in model.named_parameters()], seed)
        model.load_state_dict({name: torch.from_numpy(value) for name, value in drawn.items()})
    images, labels = parts["train"]
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    steps = len(labels) // BATCH
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 + math.cos(math.pi * step / steps / epochs)) / 2)
    losses, scores = [], {name: [accuracy(model, *parts[name])] for name in ("validation", "test")}
    for epoch in range(1, epochs + 1):
        order = torch.randperm(len(labels)) if own else torch.from_numpy(draws.order(len(labels), seed, epoch))
        total = 0.0
        for batch in order[: steps * BATCH].reshape(steps, BATCH):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        losses.append(total / steps)
        for name, values in scores.items():
            values.append(accuracy(model, *parts[name]))
    return Run(losses, *scores.values(), (time.perf_counter() - start, time.process_time() - cpu))


def accuracy(model, images, labels):
    with torch.no_grad():
        guesses = torch.cat([model(part).argmax(1) for part in images.split(BATCH)])
    return 100 * (guesses == labels).double().mean().item()


def spread(values):
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def compare(task, options, folder):
    load, make, network, normalize, epochs = TASKS[task]
    epochs = options.epochs or epochs
    data = split(load())
    runs = {"engraft": [], "PyTorch": [], **({"PyTorch, own draws": []} if options.own else {})}
    for name, (images, labels) in data.items():
        np.savez(folder / f"{name}.npz", x=images, y=labels)
    for seed in options.seeds:
        for who, finished in runs.items():
            if who == "engraft":
                run = ours(options.program.resolve(), folder, network, seed, epochs, normalize)
            else:
                run = torchs(make, data, seed, epochs, normalize, who != "PyTorch")
            finished.append(run)
            print(f"{task} seed {seed}, {who}: {run}", flush=True)
    for who, finished in runs.items():
        final, kept, seconds = zip(*((run.final, run.kept, run.seconds) for run in finished))
        fastest = " | ".join(f"{min(column):.1f} s" for column in zip(*seconds))
        print(f"| {task} | {who} | {spread(final)} | {spread(kept)} | {fastest} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", help=f"some of {', '.join(TASKS)}; all by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="fewer or more than by default")
    parser.add_argument("--own", action="store_true", help="also let PyTorch draw for itself")
    parser.add_argument("--program", type=pathlib.Path, default="target/release/engraft", help="our command line")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as folder:
        for task in options.tasks or TASKS:
            compare(task, options, pathlib.Path(folder))


if __name__ == "__main__":
    main()
