"""vLLM's inside is known for one version only: each part of this folder checks at start that it is as expected."""

PINNED_VERSION = "0.32."


class UnknownEngine(RuntimeError):
    """This vLLM is not the one we know: usage, isolation or replies could be wrong, so nothing is served."""


def require(owner: object, *names: str) -> None:
    """Raise `UnknownEngine` where `owner`, an object or module of vLLM, does not have all of `names`."""
    missing = [name for name in names if not hasattr(owner, name)]
    if missing:
        owner_name = getattr(owner, "__name__", type(owner).__name__)
        raise UnknownEngine(f"vLLM's {owner_name} has no {', '.join(missing)}: not version {PINNED_VERSION}x?")
