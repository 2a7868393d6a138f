"""What goes wrong, in one tree.

    RblError                 everything that the package raises on purpose
      InputError             a value, a file or a name that the user gave
        UnsupportedError     parts that do not fit together, as an attack and a norm
      WrongModelError        the classifier broke its contract (logits of the wrong shape)

Each message is one sentence that names the cause and one that names the remedy.
"""

import difflib
from collections.abc import Iterable


class RblError(Exception):
    """An error with a message meant for the user."""


class InputError(RblError, ValueError):
    """A value, a file or a name given by the user cannot be used."""


class UnsupportedError(InputError):
    """The parts are fine by themselves but do not fit together."""


class WrongModelError(RblError):
    """The classifier does not return finite logits of shape (N, classes)."""


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that nobody registered, with the nearest names that exist."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
    return InputError(f"no {kind} is called {name!r}; did you mean {', '.join(near)}?")
