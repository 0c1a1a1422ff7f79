"""Pushes a fused model to a real tracking server of MLflow and to event files that TensorBoard reads, and compares what comes back.

    tests/destinations/check BINARY
"""

import hashlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np

binary = sys.argv[1]


def engraft(*arguments, **variables):
    """What the program prints."""
    ran = subprocess.run([binary, *map(str, arguments)], env=os.environ | variables, capture_output=True, text=True)
    assert ran.returncode == 0, (arguments, ran.stderr)
    return ran.stdout.strip()


def make(folder):
    """A folder with a fused model and its report."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 8))
    arrays = {}
    for suffix, count in (("", 600), ("_test", 200)):
        labels = rng.integers(0, 4, count)
        arrays[f"x{suffix}"] = (centres[labels] + 0.5 * rng.normal(size=(count, 8))).astype(np.float32)
        arrays[f"y{suffix}"] = labels
    np.savez(folder / "data.npz", **arrays)
    engraft("train", "--dataset", folder / "data.npz", "--network", "mlp:16", "--seeds", "0,1", "--epochs", 3, "--out", folder / "members")
    fused = folder / "fused"
    fused.mkdir()
    members = [part for seed in range(2) for part in ("--member", folder / "members" / f"m{seed}.safetensors")]
    results = ["--out", fused / "fused.safetensors", "--report", fused / "report.json"]
    engraft("fuse", *members, "--dataset", folder / "data.npz", "--epochs", 3, *results)
    return fused


def curve(report, split, measure):
    """Step and value of each epoch that has one."""
    if split == "train":
        values = [(epoch["epoch"], epoch[f"train_{measure}"]) for epoch in report["epochs"]]
    else:
        values = [(epoch["epoch"], epoch[split][measure]) for epoch in report["epochs"]]
    return [(step, value) for step, value in values if value is not None]


CURVES = [("train", "loss"), ("train", "accuracy"), ("validation", "accuracy"), ("validation", "loss"), ("test", "accuracy")]


def check_tensorboard(folder, fused, report):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path = Path(engraft("push", fused, "--to", f"tensorboard:{folder / 'runs'}"))
    events = EventAccumulator(str(path.parent))
    events.Reload()
    for split, measure in CURVES:
        read = [(event.step, event.value) for event in events.Scalars(f"{split}/{measure}")]
        expected = [(step, float(np.float32(value))) for step, value in curve(report, split, measure)]
        assert read == expected, (split, measure, read, expected)
    for candidate in report["candidates"]:
        if candidate["kind"] in ("ensemble", "fused"):
            (event,) = events.Scalars(f"{candidate['kind']}/test/accuracy")
            assert math.isclose(event.value, candidate["test"]["accuracy"], rel_tol=1e-6), candidate
    print(f"TensorBoard: {len(events.Tags()['scalars'])} scalars read")


def serve(folder):
    """A tracking server on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder / "artifacts")]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *store]
    log = open(folder / "mlflow.log", "wb")
    # A session of its own: the server has children, and all of them end with it.
    server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    return server, f"http://127.0.0.1:{port}"


def wait(address, seconds=120):
    for _ in range(seconds):
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
            return
        except OSError:
            time.sleep(1)
    raise TimeoutError(address)


def check_mlflow(folder, fused, report, address):
    import mlflow

    for _ in range(2):
        engraft("push", fused, "--to", "mlflow", "--experiment", "letters é", "--register", "letters", MLFLOW_TRACKING_URI=address)
    mlflow.set_tracking_uri(address)
    client = mlflow.MlflowClient()
    experiment = mlflow.get_experiment_by_name("letters é")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2
    run = runs[0]
    assert run.info.status == "FINISHED" and run.data.params["method.name"] == "neuron_transplantation", run
    assert run.data.tags["engraft.model.sha256"] == report["identity"]["model"]["sha256"]
    for split, measure in CURVES:
        history = client.get_metric_history(run.info.run_id, f"{split}/{measure}")
        read = sorted((metric.step, metric.value) for metric in history)
        expected = curve(report, split, measure)
        assert len(read) == len(expected), (split, measure, read, expected)
        for (step, value), (expected_step, expected_value) in zip(read, expected):
            assert step == expected_step and math.isclose(value, expected_value, rel_tol=1e-12), (split, measure)
    versions = client.search_model_versions("name='letters'")
    assert sorted(version.version for version in versions) in ([1, 2], ["1", "2"]), versions
    model = Path(mlflow.artifacts.download_artifacts(artifact_uri="models:/letters/2"))
    digest = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    assert digest == report["identity"]["model"]["sha256"]
    print(f"MLflow {mlflow.__version__}: {len(run.data.metrics)} metrics, {len(run.data.params)} parameters, {len(list(model.iterdir()))} files")


with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    fused = make(folder)
    report = json.loads((fused / "report.json").read_text())
    check_tensorboard(folder, fused, report)
    server, address = serve(folder)
    try:
        wait(address)
        check_mlflow(folder, fused, report, address)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
