"""The compose file: what the compose specification takes, once its variables have values, and what its comments promise.

    python3 deploy/checks/compose.py
"""

import re
import sys
from pathlib import Path

import yaml
from compose_spec import PyCompose

FOLDER = Path(__file__).resolve().parents[1]
# The services that run engraft.
OURS = ("server", "worker", "gpu")
SECRET = re.compile(r"KEY|PASSWORD")
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?:(:[-?])([^}]*))?\}")


class Invalid(Exception):
    """The file is not what it should be."""


def example() -> dict[str, str]:
    """The variables of the example, with something in place of each secret."""
    lines = (FOLDER / "compose.env.example").read_text().splitlines()
    pairs = [line.split("=", 1) for line in lines if line and not line.startswith("#")]
    if filled := [name for name, value in pairs if SECRET.search(name) and value]:
        raise Invalid(f"the example holds {filled}")
    return {name: value or f"a-{name.lower()}" for name, value in pairs}


def interpolated(text: str, variables: dict[str, str]) -> str:
    """As compose does it, for the forms that the file uses."""

    def value(found: re.Match) -> str:
        name, how, words = found.groups()
        if variables.get(name):
            return variables[name]
        if how == ":-":
            return words
        raise Invalid(f"the variable {name} is not set: {words}")

    return VARIABLE.sub(value, text).replace("$$", "$")


def without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def check(file: dict):
    """What the comments of the file promise."""
    services = file["services"]
    for name, service in services.items():
        lasting = service.get("restart") == "unless-stopped"
        healthy = "test" in service.get("healthcheck", {})
        if lasting and not healthy and name not in OURS:
            raise Invalid(f"{name} has no health check")
        for dependency, how in service.get("depends_on", {}).items():
            if dependency not in services:
                raise Invalid(f"{name} waits for {dependency}, which is not there")
            wanted = "service_healthy" if "healthcheck" in services[dependency] else "service_completed_successfully"
            if how["condition"] != wanted:
                raise Invalid(f"{name} should wait until {dependency} is {wanted}")
    named = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    if (named := {name for name in named if not name.startswith("/")}) != set(file["volumes"]):
        raise Invalid(f"volumes {set(file['volumes'])} are not those that are mounted: {named}")
    for name in OURS:
        service = services[name]
        if name != "server" and service["healthcheck"] != {"disable": True} or name == "server" and "healthcheck" in service:
            raise Invalid("the image's health check is for the server, and for it alone")
        if service["pull_policy"] != "never":
            raise Invalid(f"{name} is looked for in a registry, where nobody has put it")
        if not (service["read_only"] and service["cap_drop"] == ["ALL"]):
            raise Invalid(f"{name} may do too much")
    if services["worker"]["deploy"]["replicas"] != 2:
        raise Invalid("two workers are promised")


def main():
    text = without_comments((FOLDER / "compose.yaml").read_text())
    variables = example()
    for name, _, words in VARIABLE.findall(text):
        if name not in variables:
            raise Invalid(f"compose.env.example lacks {name} ({words})")
    for name in variables:
        if name not in {found[0] for found in VARIABLE.findall(text)}:
            raise Invalid(f"compose.env.example has {name}, which nothing reads")
    for line in text.splitlines():
        written = re.match(r"\s*([A-Z_]+): (.+)", line)
        if written and SECRET.search(written[1]) and not written[2].startswith("${"):
            raise Invalid(f"a secret is written down: {line.strip()}")
    # YAML's own reader puts anchors and `<<` in.
    file = yaml.safe_load(interpolated(text, variables))
    try:
        parsed = PyCompose.from_yaml(yaml.safe_dump(file))
        parsed.validate()
    except ValueError as fault:
        raise Invalid(str(fault)) from None
    check(file)
    try:
        interpolated(text, {})
    except Invalid:
        pass
    else:
        raise Invalid("it starts without an environment file")
    print(f"compose: {', '.join(sorted(parsed.service_names()))}: what the specification takes; not run")


if __name__ == "__main__":
    try:
        main()
    except Invalid as fault:
        sys.exit(f"compose: {fault}")
