"""What goes wrong, in one tree.

    RblError                 everything that the package raises on purpose
      InputError             a value, a file or a name that the user gave
        UnsupportedError     parts that do not fit together, as an attack and a norm
        DamagedError         a stored file that is not what was written
        ModelFailedError     the model raised an error of its own; another try may succeed
      WrongModelError        the classifier broke its contract (logits of the wrong shape)
      IncompleteError        something could not be computed or stored; the rest is sound

Each message is one sentence that names the cause and one that names the remedy.
"""

import difflib
import tomllib
from collections.abc import Iterable
from typing import ClassVar

# What reading a text file as TOML can end in; brackets may nest deeper than Python can follow.
UNREADABLE_TOML = (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError)


class RblError(Exception):
    """An error with a message meant for the user.

    Attributes:
        exit_code: what the command line ends with.
    """

    exit_code: ClassVar[int] = 2


class InputError(RblError, ValueError):
    """A value, a file or a name given by the user cannot be used."""


class UnsupportedError(InputError):
    """The parts are fine by themselves but do not fit together."""


class DamagedError(InputError):
    """A stored file is not what was written."""


class ModelFailedError(InputError):
    """The model raised an error of its own: of the images' shape, or of a device perhaps."""


class IncompleteError(RblError):
    """Something could not be computed or stored; what is stored is sound, and the rest resumes."""

    exit_code = 6


class WrongModelError(RblError):
    """The classifier does not return finite logits of shape (N, classes)."""


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that nobody registered, with the nearest names that exist."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
    return InputError(f"no {kind} is called {name!r}; did you mean {', '.join(near)}?")
