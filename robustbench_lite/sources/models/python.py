"""Models that the user's own Python makes: a file's factory, or a module's."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from torch import nn

from robustbench_lite.card import Profile
from robustbench_lite.classifier import Classifier
from robustbench_lite.errors import InputError, RblError, unknown
from robustbench_lite.sources.models.made import (
    COMMON,
    Native,
    checked_settings,
    made,
    seeded,
    whole_number,
)
from robustbench_lite.weights import load_into

_OURS = (*COMMON, "weights")
_PREPARING = ("normalize", "bounds", "resize")
_CALLABLE_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def python(argument: str, settings: Mapping[str, str]) -> tuple[Classifier, Profile]:
    """A model that Python makes: path/to/file.py:factory or package.module:factory.

    The factory is a function or a class that returns a torch.nn.Module, or such a module itself.
    Settings behind the ? are handed to it by name, as net.py:make?depth=18&act=relu: numbers and
    true, false and null as such, all else as text. It may return a robustbench_lite.Classifier,
    which says how images are prepared.

    Ours are normalize, bounds, resize and weights (--weights FILE, loaded into what it returns);
    num_classes is handed to a factory that has a parameter of this name. Files beside file.py and,
    for modules, the working folder can be imported. Its random weights are the same each time.
    """
    place, _, name = argument.partition(":")
    is_file = place.endswith(".py")
    folder = _path(argument, place).parent if is_file else Path.cwd()
    with _importable(folder), seeded():
        module = _file(argument, _path(argument, place)) if is_file else _module(argument, place)
        factory = _named(argument, module, name)
        made_of_it = _called(argument, factory, settings)
    if not isinstance(made_of_it, nn.Module):
        raise InputError(
            f"{argument} gives {_a(made_of_it)}, not a torch.nn.Module; return the model itself"
        )
    inner = made_of_it.model if isinstance(made_of_it, Classifier) else made_of_it
    if "weights" in settings:
        load_into(inner, Path(settings["weights"]))
    classes = whole_number(argument, settings, "num_classes")
    if not isinstance(made_of_it, Classifier):
        return made(argument, made_of_it, settings, Native(classes=classes))
    for key in _PREPARING:
        if key in settings:
            raise InputError(
                f"{argument} gives a Classifier, which prepares images itself; leave out {key}, "
                "or return the bare module"
            )
    native = Native(classes=classes, names=made_of_it.classes or ())
    return made_of_it.eval(), made(argument, made_of_it, {}, native)[1]


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Modules of a folder can be imported inside."""
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if str(folder) in sys.path:  # the user's code may have changed it
            sys.path.remove(str(folder))


def _path(argument: str, place: str) -> Path:
    try:
        return Path(place).expanduser().resolve()
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"{argument}: no such file ({error}); check the path") from error


def _file(spec: str, path: Path) -> ModuleType:
    """The module of a file, under a name that only its content decides.

    So a digest of the model is the same in every process, and no installed module is hidden.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{spec}: {path} cannot be read ({error.strerror}); check the path before the colon"
        ) from error
    _check_siblings(spec, path.resolve())
    stem = path.stem.replace(".", "_")
    name = f"of-file-{sha256(content).hexdigest()[:12]}-{stem}"
    found = importlib.util.spec_from_file_location(name, path.resolve())
    if found is None or found.loader is None:
        raise InputError(f"{spec}: {path} is no Python file; give one that ends in .py")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's file may raise anything
        del sys.modules[name]
        _fail(f"{spec}: {path} cannot be imported", error, path)
    return module


def _check_siblings(spec: str, path: Path) -> None:
    """Raise InputError where a module beside it would be mistaken for one imported before."""
    for file in (*path.parent.glob("*.py"), *path.parent.glob("*/__init__.py")):
        name = file.parent.name if file.stem == "__init__" else file.stem
        known = Path(getattr(sys.modules.get(name), "__file__", None) or file).resolve()
        if known != file and not _FOLDERS.isdisjoint((known.parent, known.parent.parent)):
            raise InputError(
                f"{spec}: {file} would be mistaken for {known}, which another model has imported; "
                "rename one of them"
            )
    _FOLDERS.add(path.parent)


_FOLDERS: set[Path] = set()  # of the files that models were made of in this process


def _module(spec: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise InputError(
                f"{spec}: there is no Python module {error.name!r}; install it, or run in the "
                "folder that holds it"
            ) from error
        _fail(f"{spec}: module {name} cannot be imported", error)
    except (Exception, SystemExit) as error:  # the user's module may raise anything
        _fail(f"{spec}: module {name} cannot be imported", error)


def _named(spec: str, module: ModuleType, name: str) -> Any:
    if hasattr(module, name):
        return getattr(module, name)
    known = [key for key, value in vars(module).items() if key[0] != "_" and callable(value)]
    if not known or not name.isidentifier():
        raise InputError(
            f"{spec}: {name!r} is no name in it; write the name of a function or class behind "
            "the colon, as file.py:make"
        )
    raise unknown(f"factory in {spec.partition(':')[0]}", name, known)


def _called(spec: str, factory: Any, settings: Mapping[str, str]) -> Any:
    """What the factory returns, or the module that it is already."""
    if isinstance(factory, nn.Module):
        checked_settings(spec, settings, ("weights",))
        return factory
    if not callable(factory):
        raise InputError(
            f"{spec} is {_a(factory)}, which cannot be called; name a function or a class that "
            "returns the model"
        )
    values = {key: _scalar(text) for key, text in settings.items() if key not in _OURS}
    parameters = _parameters(factory)
    if parameters is not None:
        if "num_classes" in settings and "num_classes" in parameters:
            values["num_classes"] = whole_number(spec, settings, "num_classes")
        _check_arguments(spec, parameters, values)
    try:
        return factory(**values)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        if isinstance(error, RblError):
            raise
        _fail(f"{spec} failed", error, inspect.getsourcefile(inspect.unwrap(factory)))


def _parameters(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    try:
        return inspect.signature(factory).parameters
    except (TypeError, ValueError):  # of a builtin: it says itself what it does not take
        return None


def _check_arguments(
    spec: str, parameters: Mapping[str, inspect.Parameter], values: Mapping[str, object]
) -> None:
    """Raise InputError for a setting that the factory does not take, or lacks."""
    taken = {name: p for name, p in parameters.items() if p.kind in _CALLABLE_KINDS}
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for key in values:
        if key not in taken and not takes_all:
            raise unknown(f"setting of {spec}", key, {*taken, *_OURS})
    lacking = [n for n, p in taken.items() if p.default is p.empty and n not in values]
    if lacking:
        raise InputError(
            f"{spec} needs {', '.join(lacking)}; write {spec}?{lacking[0]}=VALUE, or give the "
            "parameter a default"
        )


def _scalar(text: str) -> object:
    """A number, truth value or null of JSON (or Python's True, False, None); else the text."""
    if text in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[text]
    try:
        value = json.loads(text, parse_constant=lambda _: text)
    except ValueError:
        return text
    return text if isinstance(value, list | dict) else value


def _fail(what: str, error: BaseException, file: object = None) -> NoReturn:
    """Raise InputError with the cause, and where in the user's file it is."""
    where = ""
    if isinstance(error, SyntaxError) and error.filename:
        where = f" in {Path(error.filename).name}, line {error.lineno}"
    else:
        frames = traceback.extract_tb(error.__traceback__)
        foreign = [frame for frame in frames if not frame.filename.startswith("<frozen")]
        wanted = Path(str(file)).resolve() if file else None
        own = [frame for frame in foreign if Path(frame.filename).resolve() == wanted]
        last = (own or foreign)[-1]
        where = f" in {Path(last.filename).name}, line {last.lineno}"
    cause = " ".join(str(getattr(error, "msg", "") or error).split())
    told = f"{type(error).__name__}: {cause}" if cause else type(error).__name__
    raise InputError(f"{what} ({told}{where}); correct it there") from error


def _a(value: object) -> str:
    kind = type(value).__name__
    return "None" if value is None else f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
