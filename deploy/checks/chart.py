"""The Helm chart: linted and rendered with every file of its folder ci/, each manifest held against its schema and the chart's promises, and
what it must refuse is refused.

    python3 deploy/checks/chart.py
"""

import copy
import json
import re
import sys
from pathlib import Path

import helm_python
import yaml
from promises import broken, of_kind
from schemas import KUBERNETES, Invalid, check

CHART = Path(__file__).resolve().parents[1] / "helm" / "engraft"
# The longest name that a release may have.
RELEASE = "a-release-with-the-longest-name-that-helm-lets-anyone-give"[:53].rstrip("-")
ERROR = 3


class Strict(yaml.SafeLoader):
    """A key that is there twice is a mistake."""


def mapping(loader, node):
    keys = [loader.construct_object(key) for key, _ in node.value]
    if len(keys) != len(set(keys)):
        raise Invalid(f"a key is there twice: {keys}")
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)


def load(name: str) -> dict:
    return yaml.load((CHART / name).read_text(), Strict)


def manifests(rendered: dict[str, str]) -> list[dict]:
    texts = [text for name, text in rendered.items() if not name.endswith(".txt")]
    return [manifest for text in texts for manifest in yaml.load_all(text, Strict) if manifest]


def lint(values: dict):
    report = helm_python.lint(CHART, values, strict=True, kube_version=f"v{KUBERNETES}.0")
    faults = report["errors"] + [message for message in report["messages"] if message["severity"] >= ERROR - 1]
    if faults:
        raise Invalid(f"lint: {faults}")


def check_release(chart, values: dict, name: str) -> tuple[str, set[str]]:
    """What was made, and by which templates."""
    lint(values)
    rendered = chart.render(values, name=name, namespace="fusion")
    made = manifests(rendered)
    for manifest in made:
        check(manifest)
    if faults := list(broken(made)):
        raise Invalid("; ".join(faults))
    return ", ".join(sorted(manifest["kind"] for manifest in made)), {path for path, text in rendered.items() if text.strip()}


def set_value(values: dict, path: str, value):
    *folders, last = path.split(".")
    for folder in folders:
        values = values[int(folder)] if isinstance(values, list) else values.setdefault(folder, {})
    values[last] = value


def check_page(chart):
    """The values that docs/kubernetes.md shows: a block with an image is whole, others go on top of the one before."""
    text = (CHART.parents[2] / "docs" / "kubernetes.md").read_text()
    blocks, whole = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL), {}
    for block in blocks:
        values = yaml.load(block, Strict)
        whole = values if "image" in values else {**whole, **values}
        check_release(chart, whole, "engraft")
    return len(blocks)


def check_zeros(chart):
    """Values that templates easily take for absent."""
    values = load("ci/postgres-s3.yaml")
    for path, value in {"workers.0.replicas": 0, "server.settings": {"ENGRAFT_LOG_FORMAT": ""}, "workers.0.auto": False}.items():
        set_value(values, path, value)
    deployments = of_kind(manifests(chart.render(values, name="engraft")), "Deployment")
    made = {manifest["metadata"]["name"]: manifest["spec"] for manifest in deployments}
    if made["engraft-worker-cpu"]["replicas"] != 0:
        raise Invalid("a class without replicas has some")
    variables = {variable["name"]: variable.get("value") for variable in made["engraft"]["template"]["spec"]["containers"][0]["env"]}
    if variables["ENGRAFT_LOG_FORMAT"] != "":
        raise Invalid("an empty setting of the server does not stand before that of all")
    values["keda"] = {"enabled": True}
    (job,) = of_kind(manifests(chart.render(values, name="engraft")), "ScaledJob")
    if "auto" in job["spec"]["triggers"][0]["metadata"]["query"]:
        raise Invalid("a class that is not for open jobs counts them")


# A file of ci/, what is changed in it, and what the refusal says.
REFUSED = [
    ("sqlite", {"image.repository": ""}, "image.repository is empty"),
    ("sqlite", {"apiKey.existingSecret": ""}, "apiKey.existingSecret is empty"),
    ("sqlite", {"server.replicas": 2}, "cannot share SQLite"),
    ("sqlite", {"server.replicas": 2, "blobs.kind": "s3", "blobs.bucket": "models"}, "cannot share SQLite, wherever the files are"),
    ("sqlite", {"workers": [{"name": "cpu", "device": "cpu"}]}, "Workers in pods of their own cannot share SQLite"),
    ("sqlite", {"keda.enabled": True}, "KEDA counts waiting jobs in PostgreSQL"),
    ("sqlite", {"server.settings": {"ENGRAFT_WORKERS": "2"}}, "server.workers"),
    ("sqlite", {"ingress.enabled": True}, "ingress.host"),
    ("postgres-s3", {"blobs.kind": "file"}, "Several servers need their files in one place"),
    ("postgres-s3", {"blobs.kind": "file", "server.replicas": 1}, "need the server's files"),
    ("postgres-s3", {"blobs.bucket": ""}, "blobs.bucket"),
    ("postgres-s3", {"database.existingSecret": ""}, "database.existingSecret"),
    ("postgres-s3", {"keda.enabled": True, "workers": []}, "KEDA has nothing to start"),
    ("keda-gpu", {"workers.1.name": "cpu"}, "Two classes of workers are called cpu"),
    ("keda-gpu", {"workers.1.minReplicas": 9}, "minReplicas above"),
    ("keda-gpu", {"workers.0.settings.ENGRAFT_WORKERS": "2"}, "a pod for each job"),
    # By values.schema.json.
    ("sqlite", {"server.replica": 2}, "replica"),
    ("sqlite", {"database.kind": "mysql"}, "kind"),
    ("sqlite", {"settings": {"ENGRAFT_DATABASE": "postgres://user:secret@host/db"}}, "ENGRAFT_DATABASE"),
    ("keda-gpu", {"workers.0.device": "tpu"}, "device"),
]


def check_refusals(chart):
    for name, changes, words in REFUSED:
        values = copy.deepcopy(load(f"ci/{name}.yaml"))
        for path, value in changes.items():
            set_value(values, path, value)
        try:
            chart.render(values, name="engraft", namespace="fusion")
        except helm_python.HelmError as refusal:
            if words not in str(refusal):
                raise Invalid(f"{name} with {changes} is refused, but not for `{words}`: {refusal}") from None
        else:
            raise Invalid(f"{name} with {changes} is not refused")


def check_schemas():
    """The schemas see a field that nobody knows, and a value of the wrong kind."""
    job = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledJob", "metadata": {"name": "a"}}
    pod = {"spec": {"containers": [{"name": "a", "image": "a"}], "restartPolicy": "Never"}}
    good = {"jobTargetRef": {"template": pod}, "triggers": [{"type": "postgresql", "metadata": {"port": "5432"}}]}
    check({**job, "spec": good})
    for bad in ({"scaling": {}}, {"scalingStrategy": {"strategi": "accurate"}}, {"pollingInterval": "often"}, {"triggers": [{"metadata": {}}]}):
        try:
            check({**job, "spec": {**good, **bad}})
        except Invalid:
            continue
        raise Invalid(f"a ScaledJob with {bad} passes")


def fields(schema: dict, value, path: str):
    """Fields of values.yaml that its schema does not know, or the other way."""
    known, there = set(schema.get("properties", {})), set(value) if isinstance(value, dict) else set()
    if known and schema.get("additionalProperties") is False:
        for name in (known ^ there) - {"global"}:
            yield f"{path}{name}"
        for name in known & there:
            yield from fields(schema["properties"][name], value[name], f"{path}{name}.")


def check_values():
    schema = json.loads((CHART / "values.schema.json").read_text())
    if odd := list(fields(schema, load("values.yaml"), "")):
        raise Invalid(f"values.yaml and values.schema.json differ in {odd}")
    text = (CHART / "values.yaml").read_text()
    classes = text[text.index("# Classes of workers") :]
    for name in schema["properties"]["workers"]["items"]["properties"]:
        if name not in classes:
            raise Invalid(f"values.yaml does not say that a class has {name}")


def main():
    chart = helm_python.Chart.load(CHART)
    used = set()
    files = sorted(path.name for path in (CHART / "ci").glob("*.yaml"))
    for name in files:
        for release in ("engraft", RELEASE):
            made, templates = check_release(chart, load(f"ci/{name}"), release)
        used |= templates
        print(f"chart: ci/{name}: {made}")
    if idle := {f"engraft/{entry['name']}" for entry in chart.templates if "/_" not in entry["name"]} - used - {"engraft/templates/refusals.yaml"}:
        raise Invalid(f"no file of ci/ uses {idle}")
    check_schemas()
    print(f"chart: {len(files)} files of values linted by Helm {helm_python.helm_sdk_version()}, rendered, and valid for Kubernetes {KUBERNETES}")
    print(f"chart: docs/kubernetes.md: {check_page(chart)} blocks of values make valid manifests")
    check_values()
    check_zeros(chart)
    print("chart: values.yaml and its schema have the same fields; 0, false and the empty string are values")
    check_refusals(chart)
    print(f"chart: {len(REFUSED)} wrong combinations are refused, each for its reason")


if __name__ == "__main__":
    try:
        main()
    except (Invalid, helm_python.HelmError) as fault:
        sys.exit(f"chart: {fault}")
