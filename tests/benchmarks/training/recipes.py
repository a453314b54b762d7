"""What each shipped recipe gains over its base, on a running installation and through its gateway."""

import json
from pathlib import Path

from support.servers.whole_stack import Stack, private_environment, start, stop
from tokenyard.settings import shipped

LIMIT_S = 1800.0


def measure(folder: Path) -> dict[str, float]:
    """Return of each recipe with held-out rows how much more of them the tuned model gets right, 0 to 1."""
    recipes = sorted(file.parent.name for file in shipped("deployments/recipes").glob("*/test.jsonl"))
    stack = start(private_environment(folder))
    try:
        stack.tenant("recipes")
        return {f"gain_{name.replace('-', '_')}": _gain(stack, name) for name in recipes}
    finally:
        stop(stack)


def _gain(stack: Stack, recipe: str) -> float:
    run = stack.command("recipe", "run", recipe, "--organization", "recipes", "--json", timeout_s=LIMIT_S)
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(run.stdout)
    return round(float(found["tuned"]) - float(found["base"]), 3)
