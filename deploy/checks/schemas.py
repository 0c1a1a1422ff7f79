"""Whether a manifest is what its kind takes: Kubernetes' own kinds by kubernetes-validate, others by the models made of their CRDs."""

from functools import cache

import jsonschema
import kubernetes_validate
from cloudcoil.models.keda.v1alpha1 import ScaledJob, TriggerAuthentication
from cloudcoil.models.prometheus_operator.v1 import ServiceMonitor

KUBERNETES = "1.37"
MODELS = {
    ("keda.sh/v1alpha1", "ScaledJob"): ScaledJob,
    ("keda.sh/v1alpha1", "TriggerAuthentication"): TriggerAuthentication,
    ("monitoring.coreos.com/v1", "ServiceMonitor"): ServiceMonitor,
}


class Invalid(Exception):
    """A manifest that its kind does not take."""


def strict(schema):
    """A model leaves unknown fields out, and takes null for an absent one; a manifest may have neither."""
    if isinstance(schema, list):
        return [strict(part) for part in schema if part != {"type": "null"}]
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(value) for key, value in schema.items()}
    if "properties" in schema:
        schema.setdefault("additionalProperties", False)
    return schema


@cache
def validator(model):
    return jsonschema.Draft202012Validator(strict(model.model_json_schema(by_alias=True)))


def check(manifest: dict):
    """Raises Invalid."""
    model = MODELS.get((manifest["apiVersion"], manifest["kind"]))
    try:
        if model is None:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        else:
            validator(model).validate(manifest)
    except jsonschema.ValidationError as error:
        path = ".".join(str(part) for part in error.absolute_path)
        raise Invalid(f"{manifest['kind']} {manifest['metadata']['name']}: {path}: {error.message[:300]}") from None
    except kubernetes_validate.SchemaNotFoundError as error:
        raise Invalid(error.message) from None
    if manifest["kind"] == "ScaledJob":
        # KEDA makes Jobs of it, whose pods Kubernetes' own schema describes more closely.
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": manifest["metadata"], "spec": manifest["spec"]["jobTargetRef"]}
        check(job)
