"""What the chart promises beyond the schemas: yields a sentence for each promise that a rendered release breaks."""

import re

# Seconds beyond the drain timeout that a pod has at least.
MARGIN = 10


def pods(manifests):
    """Name, labels and specification of every pod."""
    for manifest in manifests:
        spec = manifest.get("spec", {})
        template = spec.get("jobTargetRef", spec).get("template")
        if template:
            yield f"{manifest['kind']} {manifest['metadata']['name']}", template["metadata"]["labels"], template["spec"]


def matches(selector: dict, labels: dict) -> bool:
    return selector.items() <= labels.items()


def of_kind(manifests, *kinds):
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def broken(manifests):
    yield from broken_secrets(manifests)
    yield from broken_selectors(manifests)
    for name, _, spec in pods(manifests):
        for fault in broken_pod(spec):
            yield f"{name}: {fault}"
    yield from broken_grace(manifests)
    yield from broken_names(manifests)


def broken_secrets(manifests):
    for manifest in of_kind(manifests, "Secret"):
        yield f"a Secret is made: {manifest['metadata']['name']}"
    for name, _, spec in pods(manifests):
        for variable in spec["containers"][0]["env"]:
            secret = re.search(r"KEY|PASSWORD|TOKEN", variable["name"])
            if secret and "secretKeyRef" not in variable.get("valueFrom", {}):
                yield f"{name}: {variable['name']} is no reference"


def broken_pod(spec: dict):
    """The `restricted` profile of Kubernetes' pod security standards, and a root that is not written."""
    pod, container = spec["securityContext"], spec["containers"][0]
    own = container["securityContext"]
    if not (pod["runAsNonRoot"] and pod["runAsUser"] == pod["fsGroup"] == 10001):
        yield "it does not run as the image's user"
    if pod["seccompProfile"]["type"] != "RuntimeDefault":
        yield "no seccomp profile"
    if own["allowPrivilegeEscalation"] or not own["readOnlyRootFilesystem"] or own["capabilities"] != {"drop": ["ALL"]}:
        yield "its container may do too much"
    if spec["automountServiceAccountToken"]:
        yield "it has a token of the cluster"
    names = [variable["name"] for variable in container["env"]]
    if len(names) != len(set(names)):
        yield f"a variable is set twice: {sorted(names)}"
    volumes = {volume["name"] for volume in spec["volumes"]}
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    if volumes != mounts:
        yield f"volumes {volumes} are not those that are mounted: {mounts}"


def broken_selectors(manifests):
    labels = {name: labels for name, labels, _ in pods(manifests)}
    for manifest in of_kind(manifests, "Deployment"):
        own = labels.pop(f"Deployment {manifest['metadata']['name']}")
        selector = manifest["spec"]["selector"]["matchLabels"]
        if not matches(selector, own):
            yield f"{manifest['metadata']['name']} does not select its own pods"
        if any(matches(selector, other) for other in labels.values()):
            yield f"{manifest['metadata']['name']} selects pods of others"
        labels[f"Deployment {manifest['metadata']['name']}"] = own
    for manifest in of_kind(manifests, "Service", "PodDisruptionBudget"):
        selector = manifest["spec"]["selector"]
        selected = [name for name, own in labels.items() if matches(selector.get("matchLabels", selector), own)]
        if len(selected) != 1 or "worker" in selected[0]:
            yield f"{manifest['kind']} selects {selected}"
    service = of_kind(manifests, "Service")[0]["metadata"]["labels"]
    for manifest in of_kind(manifests, "ServiceMonitor"):
        if not matches(manifest["spec"]["selector"]["matchLabels"], service):
            yield "the ServiceMonitor does not find the Service"
        if service[manifest["spec"]["jobLabel"]] != "engraft":
            yield "alerts and dashboard look for a job called engraft"


def broken_grace(manifests):
    configuration = of_kind(manifests, "ConfigMap")[0]["data"]["engraft.toml"]
    drain = int(re.search(r"drain_timeout = (\d+)", configuration)[1])
    for name, _, spec in pods(manifests):
        pause = spec["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        if spec["terminationGracePeriodSeconds"] < drain + pause + MARGIN:
            yield f"{name} is killed before it has drained"


def broken_names(manifests):
    """KEDA and Deployments put up to twelve characters behind names, and 63 are the most."""
    for manifest in of_kind(manifests, "Deployment", "ScaledJob"):
        if len(manifest["metadata"]["name"]) > 55:
            yield f"{manifest['metadata']['name']} is too long a name"
    accounts = {manifest["metadata"]["name"] for manifest in of_kind(manifests, "ServiceAccount")}
    for name, _, spec in pods(manifests):
        if accounts and spec["serviceAccountName"] not in accounts:
            yield f"{name} has another service account than the one that is made"
