"""Files of the Hugging Face hub: downloaded once, and only those that are needed."""

from __future__ import annotations

import re
from pathlib import Path

from robustbench_lite.errors import InputError

CONFIGS = ("config.json", "preprocessor_config.json")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def folder_of(spec: str, argument: str, *, trusted: bool, weights: bool) -> Path:
    """Where the files of a repository are, after they are downloaded if need be.

    Args:
        spec: what the user wrote.
        argument: a folder, or org/name@revision.
        trusted: its code may be run, so it is needed too.
        weights: its weights are needed.

    Raises:
        InputError: there is no such folder or repository, it cannot be reached, or it is trusted
            at a revision that moves.
    """
    path = Path(argument).expanduser()
    name, _, revision = argument.partition("@")
    if trusted and not path.is_dir() and not _COMMIT.fullmatch(revision):
        raise InputError(
            f"model {spec!r} with trust_remote_code=yes would run whatever stands in the "
            "repository tomorrow; pin a commit you have read, as hf:org/name@ and its 40 "
            "hexadecimal digits"
        )
    if path.is_dir():
        return path
    if argument.startswith((".", "/", "~")):
        raise InputError(f"model folder {path} does not exist; check the path behind hf:")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise missing(spec, "huggingface_hub", "hf") from None
    wanted = [*CONFIGS, *(WEIGHTS if weights else ()), *(("*.py",) if trusted else ())]
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=wanted))
    except Exception as error:  # the network, the hub and its client fail in ways of their own
        raise InputError(_why_not(spec, error)) from error


def _why_not(spec: str, error: Exception) -> str:
    """What went wrong with a download, in one sentence."""
    kind = type(error).__name__
    if kind == "GatedRepoError":
        return f"model {spec!r} is gated; accept its terms on the hub, then run hf auth login"
    if kind in ("RepositoryNotFoundError", "HFValidationError"):
        return f"the hub has no public repository for model {spec!r}; write it as hf:org/name"
    if kind == "RevisionNotFoundError":
        return f"model {spec!r}: the repository has no such revision; name a branch, tag or commit"
    return (
        f"model {spec!r} cannot be downloaded ({kind}: the hub was not reached and the files are "
        "not in its cache); go online once, or give a folder as hf:./folder"
    )


def missing(spec: str, package: str, extra: str) -> InputError:
    """The error for a package that is not installed."""
    return InputError(
        f"model {spec!r} needs {package}; install it with pip install 'robustbench-lite[{extra}]'"
    )
