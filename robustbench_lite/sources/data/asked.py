"""What is asked for behind the question mark of a data spec."""

from collections.abc import Iterable, Mapping

from robustbench_lite.errors import InputError, unknown


def no_settings(name: str, settings: Mapping[str, str]) -> None:
    """Raise InputError if there is a setting."""
    if settings:
        key = next(iter(settings))
        raise InputError(f"data {name!r} takes no setting {key!r}; leave out what follows the ?")


def checked_settings(spec: str, settings: Mapping[str, str], known: Iterable[str]) -> None:
    """Raise InputError for a setting that is not `known`."""
    names = tuple(known)
    for key in settings:
        if key not in names:
            raise unknown(f"setting of data {spec!r}", key, names)
