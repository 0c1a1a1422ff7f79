"""How fast engraft's CUDA engine trains beside PyTorch. benches/gpu/check.sh starts this; ENGRAFT_GPU_BENCH names engraft's half.

A step is forward, backward and SGD on 128 images that lie on the device. Ours is captured and deterministic (`ours`), or with
plans chosen by the clock (`tuned`). PyTorch's are, for tf32 and for bf16 (autocast): eager and captured as one CUDA graph, each
in the default layout and channels last (`cl`) where a network has convolutions on images, always with the fused optimizer, TF32
and cuDNN's own measuring of its algorithms, which need not be deterministic; for the first four networks in tf32 also
torch.compile (reduce-overhead, channels last). See pytorch.py.

All take turns in rounds. What counts is the median of the rounds' medians; the spread is the distance between the fastest and the
slowest round as a part of that. The ratios are the time of PyTorch's faster layout over ours, so more than 1 means that we are
faster; `!` marks what is short of the goal. Last comes how long fusing with calibration takes on the GPU and on two threads of
the processor. Everything is printed as it comes. The exit code is 1 if ours or PyTorch's eager or graph could not be measured.
"""

import argparse
import os
import pathlib
import statistics
import sys
import threading
import time

from binary import (
    Budget,
    Child,
    Problem,
    Refused,
    print_table,
    stop_when_asked,
    write_json,
)

NETWORKS = ["mlp", "lenet", "vgg11", "resnet18", "mobilenet_v2", "vit_tiny"]
CONVOLUTIONAL = ["lenet", "vgg11", "resnet18", "mobilenet_v2"]
COMPILED = ["mlp", "lenet", "vgg11", "resnet18"]
PRECISIONS = ["tf32", "bf16"]
PARTS = ["steps", "compile", "fuse"]
BATCH, GROUPS, TURN_SECONDS = 128, 5, 0.12
# How often the time of ours each way of PyTorch has to take.
GOALS = {"eager": 1.0, "graph": 1.0, "compiled": 1.0, "compiled graph": None}
EAGER_GOALS = {"mlp": 1.5, "lenet": 1.5}


class Fast:
    def __init__(self, options):
        self.options, self.out, self.budget = options, options.out, Budget(options.seconds)
        self.ours = Child("engraft", [options.binary], self.out / "fast.log")
        self.torch = self.pytorch("PyTorch")
        self.rows, self.problems, self.others = {}, [], {}

    def pytorch(self, name):
        command = [sys.executable, pathlib.Path(__file__).parent / "pytorch.py"]
        # Several compile at the same time.
        return Child(name, command, self.out / "pytorch.log", TORCHINDUCTOR_COMPILE_THREADS="4")

    def run(self):
        # PyTorch takes long to start: it does so while ours looks at the device.
        starting = threading.Thread(target=self.about, args=("pytorch", self.torch, "about"), daemon=True)
        starting.start()
        self.about("engraft", self.ours, "devices")
        starting.join()
        for part in self.options.parts:
            {"steps": self.measure_steps, "compile": self.measure_compiled, "fuse": self.fuse}[part]()

    def about(self, name, child, question):
        try:
            self.others[name] = answer = child.ask({"do": question}, self.budget.limit(60))
            print(f"{name}: {', '.join(f'{key} {value}' for key, value in answer.items() if key != 'description')}", flush=True)
        except Problem as problem:
            self.note(name, str(problem))

    def note(self, what, problem, fails=True):
        print(f"{what}: {'FAILED' if fails else 'left out'}: {problem}", flush=True)
        self.problems.append({"what": what, "problem": problem, "fails": fails})
        self.save()

    def save(self):
        rows = [{"network": network, "precision": precision, **row} for (network, precision), row in self.rows.items()]
        write_json(self.out / "fast.json", {"rows": rows, "problems": self.problems, **self.others})

    def step_of_ours(self, network, precision, deterministic=True):
        question = {"do": "step", "network": network, "batch": BATCH, "precision": precision, "captured": True,
                    "deterministic": deterministic}
        return lambda steps, limit: self.seconds(self.ours, question | {"steps": steps}, limit)

    def step_of_torch(self, child, network, precision, how, channels_last):
        question = {"do": "step", "network": network, "batch": BATCH, "precision": precision, "how": how,
                    "channels_last": channels_last}
        return lambda steps, limit: self.seconds(child, question | {"steps": steps}, limit)

    @staticmethod
    def seconds(child, question, limit):
        answer = child.ask(question, limit)
        if not answer.get("seconds"):
            raise Problem(f"{child.name} answered {answer}")
        return answer["seconds"]

    def measure(self, what, ways):
        """Medians, spreads and all times of a step, in seconds, of each way that works; none if ours does not."""
        steps, times = {}, {}
        for name, way in ways.items():
            try:
                way(GROUPS, self.budget.limit(60))
                # Once more, now that all is compiled and warm: how many steps make a turn.
                once = statistics.median(way(2 * GROUPS, self.budget.limit(20)))
                each = max(2, min(200, round(TURN_SECONDS / max(once, 1e-6) / GROUPS)))
                steps[name], times[name] = GROUPS * each, []
            except Problem as problem:
                self.note(f"{what} {name}", str(problem), fails=not name.startswith("compiled"))
                if name == "ours":
                    return {}
        for turn in range(self.options.rounds):
            order = list(steps)
            for name in order[turn % len(order):] + order[:turn % len(order)]:
                try:
                    times[name].append(ways[name](steps[name], self.budget.limit(20)))
                except Problem as problem:
                    self.note(f"{what} {name}", f"in round {turn + 1}: {problem}")
                    del steps[name]
            if not steps:
                break
        found = {}
        for name, rounds in times.items():
            if rounds:
                medians = [statistics.median(seconds) for seconds in rounds]
                median = statistics.median(medians)
                spread = (max(medians) - min(medians)) / median
                found[name] = {"seconds": median, "spread": spread, "steps": steps.get(name), "rounds": rounds}
        return found

    def profile(self, network, precision):
        """Where a step's time goes, command by command."""
        question = {"do": "profile", "network": network, "batch": BATCH, "precision": precision}
        try:
            self.rows[network, precision]["profile"] = self.ours.ask(question, self.budget.limit(20))
        except Problem as problem:
            self.note(f"{network} {precision} profile", str(problem), fails=False)

    def measure_steps(self):
        for precision in self.options.precisions:
            for network in self.options.networks:
                ways = {"ours": self.step_of_ours(network, precision),
                        "ours tuned": self.step_of_ours(network, precision, deterministic=False)}
                layouts = {"": False, " cl": True} if network in CONVOLUTIONAL else {"": False}
                for how in ("eager", "graph"):
                    for word, channels_last in layouts.items():
                        ways[how + word] = self.step_of_torch(self.torch, network, precision, how, channels_last)
                self.rows[network, precision] = self.measure(f"{network} {precision}", ways)
                self.profile(network, precision)
                self.save()
                self.show(network, precision)
                self.forget()

    def forget(self):
        for name, child in {"engraft": self.ours, "PyTorch": self.torch}.items():
            try:
                if child.is_running() and self.budget.left() > 2:
                    child.ask({"do": "forget"}, self.budget.limit(20))
            except Problem as problem:
                self.note(f"{name} forgets", str(problem))

    def measure_compiled(self):
        """Each network in a process of its own: they compile at the same time, and take turns with ours when all are ready."""
        self.forget()
        ready = {}

        def compile_one(network, how):
            try:
                way = self.step_of_torch(self.pytorch(f"PyTorch {how} {network}"), network, "tf32", how, network in CONVOLUTIONAL)
                way(GROUPS, self.budget.limit(self.options.compile_seconds))
                ready[network, how] = way
            except Problem as problem:
                self.note(f"{network} tf32 {how}", str(problem), fails=False)

        wanted = [(network, how) for network in self.options.networks if network in COMPILED for how in self.options.compiled]
        threads = [threading.Thread(target=compile_one, args=pair, daemon=True) for pair in wanted]
        start = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(f"compiled in {time.monotonic() - start:.0f} s: {', '.join(map(' '.join, ready)) or 'nothing'}", flush=True)
        for network in self.options.networks:
            ways = {how: way for (name, how), way in ready.items() if name == network}
            if ways:
                found = self.measure(f"{network} tf32", {"ours": self.step_of_ours(network, "tf32"), **ways})
                # Ours as it was beside them.
                row = self.rows.setdefault((network, "tf32"), {})
                row |= {"ours beside compiled" if name == "ours" else name: times for name, times in found.items()}
                self.save()
                self.show(network, "tf32")

    def fuse(self):
        self.forget()
        try:
            question = {"do": "fuse", "images": self.options.fuse_images}
            self.others["fuse"] = answer = self.ours.ask(question, self.budget.limit(600))
            answer["images"], answer["ratio"] = self.options.fuse_images, answer["cpu_seconds"] / answer["cuda_seconds"]
            self.save()
            print(self.fused(answer), flush=True)
        except Refused as problem:
            self.note("fuse", str(problem), fails=False)
        except Problem as problem:
            self.note("fuse", str(problem))

    @staticmethod
    def fused(answer):
        return (f"fuse resnet18 with {answer['images']} images: {answer['cuda_seconds']:.2f} s, on two threads "
                f"{answer['cpu_seconds']:.1f} s, ratio {answer['ratio']:.1f}{'' if answer['ratio'] >= 20 else '!'}")

    @staticmethod
    def best(row, how):
        """PyTorch's faster layout."""
        names = [name for name in (how, f"{how} cl") if name in row]
        return min(names, key=lambda name: row[name]["seconds"], default=None)

    def cells(self, network, precision):
        """A row of the table."""
        row = self.rows[network, precision]
        ours, cells, spreads = row.get("ours") or row.get("ours beside compiled"), [network, precision], []
        cells += ["-" if way is None else f"{way['seconds'] * 1e6:.0f}" for way in (ours, row.get("ours tuned"))]
        ratios = []
        for how, goal in GOALS.items():
            goal = EAGER_GOALS.get(network, goal) if how == "eager" else goal
            name, beside = self.best(row, how), row.get("ours beside compiled") if how.startswith("compiled") else ours
            if name is None or beside is None:
                cells, ratios = [*cells, "-"], [*ratios, "-"]
                continue
            ratio = row[name]["seconds"] / beside["seconds"]
            cells.append(f"{row[name]['seconds'] * 1e6:.0f}{name.removeprefix(how)}")
            ratios.append(f"{ratio:.2f}{'!' if goal is not None and ratio < goal else ''}")
            spreads.append(row[name]["spread"])
        spreads = [f"{100 * ours['spread']:.0f}%" if ours else "-", f"{100 * max(spreads):.0f}%" if spreads else "-"]
        return [*cells, *ratios, *spreads]

    HEADS = ("network", "in", "ours us", "tuned", *GOALS, *(f"/ {how}" for how in GOALS), "spread", "theirs")

    def show(self, network, precision):
        told = zip(self.HEADS[2:], self.cells(network, precision)[2:], strict=True)
        print(f"{network} {precision}: {', '.join(f'{head} {cell}' for head, cell in told if cell != '-')}; "
              f"{self.budget.left():.0f} s left", flush=True)

    def summary(self):
        print("\nMicroseconds of a step; PyTorch's time / ours; `!` is short of the goal")
        cells = [self.cells(*key) for key in self.rows]
        kept = [at for at in range(len(self.HEADS)) if at < 3 or any(row[at] != "-" for row in cells)]
        print_table([self.HEADS[at] for at in kept], [[row[at] for at in kept] for row in cells])
        if "ratio" in self.others.get("fuse", {}):
            print(self.fused(self.others["fuse"]))
        for problem in self.problems:
            print(f"{problem['what']}: {'FAILED' if problem['fails'] else 'left out'}: {problem['problem']}")
        print(f"{self.options.seconds - self.budget.left():.0f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS, help=f"some of {', '.join(NETWORKS)}; all by default")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compiled", nargs="+", choices=["compiled", "compiled graph"], default=["compiled"])
    parser.add_argument("--compile-seconds", type=float, default=100, help="for compiling a network")
    parser.add_argument("--fuse-images", type=int, default=10_000)
    parser.add_argument("--binary", default=os.environ.get("ENGRAFT_GPU_BENCH"), help="engraft's half")
    parser.add_argument("--seconds", type=float, default=285, help="for all together")
    parser.add_argument("--out", type=pathlib.Path, default=os.environ.get("OUT", "target/gpu"), help="for numbers and logs")
    options = parser.parse_args()
    if options.binary is None:
        parser.error("ENGRAFT_GPU_BENCH names no program")
    options.out.mkdir(parents=True, exist_ok=True)
    stop_when_asked()
    fast = Fast(options)
    try:
        fast.run()
    finally:
        Child.close_all()
        fast.save()
        fast.summary()
    sys.exit(1 if any(problem["fails"] for problem in fast.problems) else 0)


if __name__ == "__main__":
    main()
