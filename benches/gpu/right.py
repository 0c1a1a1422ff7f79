"""Whether engraft's CUDA engine is right. benches/gpu/check.sh starts this; ENGRAFT_GPU_BENCH names engraft's half.

In order, each with a time limit, going on after failures: the device; every kernel beside the processor's; 20 losses of each
network on the GPU in f32 beside the processor's, from the same weights and on the same batches, within 1e-3; the same bits of
the weights after 20 steps captured, not captured and once more, in each precision; a training that goes on after a stop; too
little memory; compute-sanitizer on small batches, where that tool is there. PyTorch's f32 losses, and ours in tf32 and bf16,
stand beside them for comparison. The processor's losses are computed meanwhile. The exit code is 1 if anything failed.
"""

import argparse
import concurrent.futures
import functools
import math
import os
import pathlib
import shutil
import sys
import tempfile
import threading
import time

from binary import Budget, Child, Problem, print_table, stop_when_asked, write_json

# The networks that take the processor longest come last.
NETWORKS = ["mlp", "lenet", "mobilenet_v2", "vgg11", "vit_tiny", "resnet18"]
STEPS, BATCH, TOLERANCE = 20, 128, 1e-3
# Training amplifies a difference of rounding, most from the first weights. So the weights are those after some steps, and the
# rates such that PyTorch in another layout stays well within the tolerance.
BEFORE, RATE, RATES = 30, 0.01, {"mobilenet_v2": 0.0005, "vgg11": 0.0005}
RATES_BEFORE = {"mobilenet_v2": 0.02, "vgg11": 0.002}
# Odd, so that the ends of rows are met.
SMALL_STEPS, SMALL_BATCH, SMALL_NETWORKS = 2, 5, ["lenet", "mobilenet_v2", "vit_tiny", "resnet18"]
SANITIZER_SECONDS = 60
UNEXPECTED = (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError)


def apart(losses, others):
    """The largest relative difference; infinite where one is no number."""
    if len(losses) != len(others):
        raise Problem(f"there are {len(losses)} losses and {len(others)}")
    differences = [abs(ours - theirs) / abs(theirs) for ours, theirs in zip(losses, others, strict=True)]
    return max(float("inf") if math.isnan(difference) else difference for difference in differences)


def given(future, limit):
    """What comes of it, if it comes within `limit` seconds."""
    try:
        return future.result(limit)
    except TimeoutError:
        raise Problem("what it is compared with was not ready in time") from None


class Right:
    def __init__(self, options, folder):
        self.out, self.folder, self.names = options.out, folder, options.networks
        self.budget = Budget(options.seconds)
        binary, here = [options.binary], pathlib.Path(__file__).parent
        self.binary = options.binary
        self.gpu = Child("engraft", binary, self.out / "right.log")
        self.cpu = Child("engraft on the processor", binary, self.out / "right.log")
        self.torch = Child("PyTorch", [sys.executable, here / "pytorch.py"], self.out / "pytorch.log")
        self.stages, self.numbers, self.found, self.is_whole = [], {}, {}, False
        self.made, self.small, self.on_cpu, self.by_torch = ({name: concurrent.futures.Future() for name in self.names}
                                                             for _ in range(4))

    def run(self):
        threading.Thread(target=self.run_torch, daemon=True).start()
        threading.Thread(target=self.run_cpu, daemon=True).start()
        self.stage("device", self.devices)
        self.stage("kernels", self.kernels)
        for name in self.names:
            self.stage(f"losses {name}", functools.partial(self.losses, name))
        for name in self.names:
            self.stage(f"same bits {name}", functools.partial(self.same_bits, name))
        self.stage("resume", self.resume)
        self.stage("out of memory", self.out_of_memory)
        self.gpu.close()
        self.stage("memcheck", self.memcheck)
        self.is_whole = True

    def stage(self, name, check):
        """Runs a check; `check` gives what to say of it, and raises Problem where it fails."""
        start = time.monotonic()
        try:
            detail = check()
            how = "right" if detail is not None else "skipped"
        except Problem as problem:
            how, detail = "FAILED", str(problem)
        except UNEXPECTED as error:  # An answer of a form that nobody expected.
            how, detail = "FAILED", f"{type(error).__name__}: {error}"
        seconds = time.monotonic() - start
        self.stages.append({"stage": name, "how": how, "seconds": round(seconds, 2), "detail": detail or "not there"})
        print(f"{name}: {how} in {seconds:.1f} s: {detail or 'not there'}", flush=True)
        write_json(self.out / "right.json", {"stages": self.stages, **self.numbers})

    def run_torch(self):
        """First weights and batches, then PyTorch's losses."""
        for name in self.names:
            self.fill(self.made[name], self.make, name, STEPS, BATCH)
        for name in self.names:
            self.fill(self.by_torch[name], self.losses_of, self.torch, name, precision="f32")
        for name in self.names:
            self.fill(self.small[name], self.make, name, SMALL_STEPS, SMALL_BATCH)
        self.torch.close()

    def run_cpu(self):
        for name in self.names:
            self.fill(self.on_cpu[name], self.losses_of, self.cpu, name, device="cpu", precision="f32", captured=False)
        self.cpu.close()

    @staticmethod
    def fill(future, function, *arguments, **named):
        try:
            future.set_result(function(*arguments, **named))
        except Problem as problem:
            future.set_exception(problem)
        except UNEXPECTED as error:
            future.set_exception(Problem(f"{type(error).__name__}: {error}"))

    def make(self, name, steps, batch):
        question = {"do": "make", "folder": self.folder, "network": name, "steps": steps, "batch": batch, "before": BEFORE,
                    "lr": RATES_BEFORE.get(name, RATE)}
        return self.torch.ask(question, self.budget.limit(60))

    def losses_of(self, child, name, **how):
        paths = given(self.made[name], self.budget.limit(90))
        question = {"do": "losses", "network": name, "lr": RATES.get(name, RATE), **paths, **how}
        return child.ask(question, self.budget.limit(45))

    def on_gpu(self, name, precision, captured):
        answer = self.losses_of(self.gpu, name, device="cuda", precision=precision, captured=captured)
        self.found.setdefault(f"{name} {precision}", []).append({"captured": captured, **answer})
        return answer

    def devices(self):
        answer = self.gpu.ask({"do": "devices"}, self.budget.limit(40))
        write_json(self.out / "description.json", answer)
        libraries = ", ".join(f"{name} {version}" for name, version in answer.get("libraries", {}).items())
        return f"{answer['name']}, driver {answer['driver']}, {libraries}"

    def kernels(self):
        answer = self.gpu.ask({"do": "kernels"}, self.budget.limit(80))
        self.numbers["kernels"] = answer
        failed = answer.get("failed", [])
        if failed or not answer["checked"]:
            raise Problem(f"{len(failed)} of {answer['checked']} failed: {'; '.join(map(str, failed[:5]))}")
        return f"{answer['checked']} checked, worst {', '.join(f'{name} {error:.1e}' for name, error in answer['worst'].items())}"

    def losses(self, name):
        # Nothing else runs on the GPU when ours begins.
        theirs = given(self.by_torch[name], self.budget.limit(60))["losses"]
        ours = self.on_gpu(name, "f32", captured=True)["losses"]
        cpu = given(self.on_cpu[name], self.budget.limit(90))["losses"]
        numbers = {"cpu": cpu, "cuda": ours, "pytorch": theirs, "apart": apart(ours, cpu), "pytorch_apart": apart(theirs, cpu)}
        self.numbers.setdefault("losses", {})[name] = numbers
        text = f"apart by {numbers['apart']:.1e}, PyTorch by {numbers['pytorch_apart']:.1e}; loss {cpu[0]:.3f} to {cpu[-1]:.3f}"
        if not numbers["apart"] <= TOLERANCE:
            first = [f"{loss:.5f}" for loss in ours[:5]]
            raise Problem(f"{text}; ours begin {', '.join(first)}")
        return text

    def same_bits(self, name):
        different, report = [], []
        for precision in ("f32", "tf32", "bf16"):
            runs = self.found.get(f"{name} {precision}", [])
            if precision == "f32" and not runs:
                raise Problem("not tried, there were no losses in f32")
            captured = runs[0] if runs else self.on_gpu(name, precision, captured=True)
            again = self.on_gpu(name, precision, captured=True)
            plain = self.on_gpu(name, precision, captured=False)
            if captured["digest"] != again["digest"]:
                different.append(f"{precision} twice")
            if plain["digest"] not in (captured["digest"], again["digest"]):
                different.append(f"{precision} captured and not")
            cpu = given(self.on_cpu[name], self.budget.limit(5))["losses"]
            report.append(f"{precision} {apart(captured['losses'], cpu):.1e}")
            self.numbers.setdefault("apart", {}).setdefault(name, {})[precision] = apart(captured["losses"], cpu)
        text = f"losses apart from the processor's: {', '.join(report)}"
        if different:
            raise Problem(f"other bits: {'; '.join(different)}; {text}")
        return text

    def resume(self):
        answer = self.gpu.ask({"do": "resume"}, self.budget.limit(60))
        if answer["equal"] is not True:
            raise Problem(f"other weights after a stop: {answer}")
        return "the same bits"

    def out_of_memory(self):
        answer = self.gpu.ask({"do": "out_of_memory"}, self.budget.limit(40))
        if answer["problem"] != "out_of_memory":
            raise Problem(f"another problem: {answer}")
        process, first = self.gpu.process, self.found.get("lenet f32")
        if first and self.on_gpu("lenet", "f32", captured=True)["digest"] != first[0]["digest"]:
            raise Problem("after it, LeNet gets other weights")
        if self.gpu.process is not process:
            raise Problem("the program ended after it")
        return f"{answer}; works on"

    def memcheck(self):
        places = [pathlib.Path(folder) for folder in os.get_exec_path()] + sorted(pathlib.Path("/usr/local").glob("cuda*/bin"))
        tool = shutil.which("compute-sanitizer", path=os.pathsep.join(map(str, places)))
        if tool is None:
            return None
        text = self.out / "memcheck.txt"
        text.unlink(missing_ok=True)
        command = [tool, "--tool", "memcheck", "--report-api-errors", "no", "--log-file", text, self.binary]
        child, own = Child("memcheck", command, self.out / "right.log"), Budget(self.budget.limit(SANITIZER_SECONDS))
        done = []
        for name in SMALL_NETWORKS:
            for precision, captured in (("f32", False), ("bf16", True)):
                if name not in self.names or (done and own.left() < SANITIZER_SECONDS / 2):
                    continue
                how = {"lr": RATES.get(name, RATE), "device": "cuda", "precision": precision, "captured": captured}
                paths = given(self.small[name], own.limit(20))
                child.ask({"do": "losses", "network": name, **paths, **how}, own.limit(SANITIZER_SECONDS))
                done.append(f"{name} {precision}")
        child.finish(own.limit(20))
        lines = text.read_text(errors="replace").splitlines()
        found = [line.strip("= ") for line in lines if "ERROR SUMMARY" in line]
        if not found or ": 0 errors" not in found[-1]:
            what = [line.strip("= ") for line in lines if "Invalid" in line or "kernel" in line or " at " in line]
            raise Problem(f"{found[-1] if found else 'it gave no summary'}: {' | '.join(what[:3])} ({', '.join(done)})")
        return f"no errors: {', '.join(done)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS, help=f"some of {', '.join(NETWORKS)}; all by default")
    parser.add_argument("--binary", default=os.environ.get("ENGRAFT_GPU_BENCH"), help="engraft's half")
    parser.add_argument("--seconds", type=float, default=230, help="for all together")
    parser.add_argument("--out", type=pathlib.Path, default=os.environ.get("OUT", "target/gpu"), help="for numbers and logs")
    options = parser.parse_args()
    if options.binary is None:
        parser.error("ENGRAFT_GPU_BENCH names no program")
    options.out.mkdir(parents=True, exist_ok=True)
    stop_when_asked()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        right = Right(options, folder)
        try:
            right.run()
        finally:
            Child.close_all()
            failed = [stage["stage"] for stage in right.stages if stage["how"] == "FAILED"]
            if not right.is_whole:
                failed.append("what was not reached")
            print()
            print_table(["check", "result", "seconds"],
                        [[stage["stage"], stage["how"], f"{stage['seconds']:.1f}"] for stage in right.stages])
            print(f"{f'{len(failed)} FAILED: ' + ', '.join(failed) if failed else 'all right'}; "
                  f"{time.monotonic() - start:.0f} s", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
