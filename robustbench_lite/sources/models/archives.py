"""The zip archives of torch.jit.save and torch.export.save, read without running what is in them.

Both are written anew from the members that were looked at, so that torch's own reader can see
nothing else: no second member of the same name, no pickle, no library.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robustbench_lite.errors import InputError
from robustbench_lite.sources.models.program import digest_of

Members = dict[str, bytes]

_PACKED = 2**28  # bytes that may be compressed: torch packs code only

_OF_SCRIPTS = re.compile(
    r"(data|constants)\.pkl|(data|constants)/[\w.]+|code/[\w./]+\.py|(\.data/)?version|byteorder"
)
# Operators of TorchScript that write or read files, and what else reaches out of torch.
_SAVES = re.compile(r"\b(save|from_file)\b")
_CLASSES = re.compile(r"torch\.classes\.(?!quantized\b)(\w+)")
_SPACES = re.compile(
    r"(?<![\w.])ops\s*\.\s*(?!(?:aten|prims?|quantized|torchvision|mkldnn)\b)(\w+)"
)

_OF_EXPORTS = re.compile(
    r"data/(weights|constants)/(weight|tensor)_\d+|archive_(format|version)|byteorder"
    r"|\.data/(version|serialization_id)"
)
_PLAIN = re.compile(r"[\w.:+-]*")
_NAME = re.compile(r"[A-Za-z_]\w*")
_TARGET = re.compile(
    r"torch\.ops\.(aten|prims|torchvision|quantized_decomposed)\.(?!save\b|from_file\b)\w+\.\w+"
    r"|torch\.sym_(int|float|max|min|not|sum|sqrt|ite)|math\.(ceil|floor|trunc|sqrt)"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_"
    r"|getitem)"
)
_NAMED = ("name", "as_name", "forward_arg_names")
_OUTSIDE = ("as_operator", "as_custom_obj", "as_graph", "custom_obj", "token")
_TREES = ("builtins.tuple", "builtins.list", "builtins.dict")
_ARITHMETIC = (
    *("Symbol", "Integer", "Rational", "Float", "Add", "Mul", "Pow", "Max", "Min", "Mod"),
    *("Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "Equality", "Unequality"),
    *("LessThan", "GreaterThan", "StrictLessThan", "StrictGreaterThan", "FloorDiv", "CeilDiv"),
    *("CleanDiv", "PythonMod", "ModularIndexing", "Where", "TruncToInt", "CeilToInt"),
    *("FloorToInt", "RoundToInt", "IntTrueDiv", "FloatTrueDiv", "PowByNatural", "ToFloat"),
    "Identity",
)
_SYMBOL = re.compile(r"[a-z]{1,3}\d+")


class RefusedError(Exception):
    """What is in an archive could do more than compute logits."""


def script_of(path: Path, remedy: str) -> tuple[bytes, str]:
    """A TorchScript archive without all that is not the program, and its digest.

    Raises:
        InputError: it is none, or its program writes or reads files.
    """
    members = _members(path, remedy)
    if "data.pkl" in members and not any(name.startswith("code/") for name in members):
        raise InputError(f"model file {path} holds weights but no program; {remedy}")
    kept = {name: body for name, body in members.items() if _OF_SCRIPTS.fullmatch(name)}
    if "data.pkl" not in kept:
        raise InputError(f"model file {path} is no TorchScript archive; {remedy}")
    for name, body in kept.items():
        if not name.startswith("code/"):
            continue
        code = body.decode("latin-1")
        for pattern in (_SAVES, _CLASSES, _SPACES):
            found = pattern.search(code)
            if found:
                raise InputError(
                    f"model file {path}: its program uses {found[1]!r}, which may reach for files "
                    "or run other code; export it without that"
                )
    return _written(kept), digest_of(kept.items())


def export_of(path: Path, remedy: str) -> tuple[bytes, str]:
    """An archive of torch.export.save with its program and its raw tensors only, and its digest.

    torch.export.load unpickles weights, constants and sample inputs, loads shared libraries, and
    evaluates texts of the program's description. So sample inputs, notes and guards are left out,
    pickles and libraries refused, and every text must be a name, an operator of torch or a sum.

    Raises:
        InputError: it is none, or something in it may run code.
    """
    members = _members(path, remedy)
    if "models/model.json" not in members:
        raise InputError(f"model file {path} is no archive of torch.export.save; {remedy}")
    kept = {name: body for name, body in members.items() if _OF_EXPORTS.fullmatch(name)}
    try:
        model = _object(members["models/model.json"])
        kept["models/model.json"] = json.dumps(_checked_program(model)).encode()
        for kind, name in (
            ("weights", "data/weights/model_weights_config.json"),
            ("constants", "data/constants/model_constants_config.json"),
        ):
            kept[name] = json.dumps(_checked_payload(kind, _object(members[name]))).encode()
    except RefusedError as error:
        raise InputError(
            f"model file {path} may run code when it is read ({error}); {remedy}"
        ) from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(
            f"model file {path} is damaged or of another version of torch "
            f"({type(error).__name__}: {error}); {remedy}"
        ) from error
    content = digest_of((n, b) for n, b in kept.items() if n != ".data/serialization_id")
    return _written(kept | {"data/sample_inputs/model.pt": b""}), content


def _members(path: Path, remedy: str) -> Members:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            packed = (e.file_size for e in entries if e.compress_type != zipfile.ZIP_STORED)
            if sum(packed) > _PACKED:
                raise InputError(f"model file {path} holds compressed weights; {remedy}")
            found = {entry.filename: archive.read(entry) for entry in entries}
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"model file {path} is no whole archive ({error}); {remedy}") from error
    roots = {name.partition("/")[0] for name in found}
    if len(roots) != 1 or len(found) != len(entries):
        raise InputError(f"model file {path} is no archive of one program; {remedy}")
    return {name.partition("/")[2]: body for name, body in found.items()}


def _written(members: Members) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, body in members.items():
            archive.writestr(f"model/{name}", body)
    return file.getvalue()


def _object(text: bytes) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("it holds no object")
    return value


def _checked_program(model: dict[str, Any]) -> dict[str, Any]:
    module = model["graph_module"]
    calls = [entry | {"fqn": ""} for entry in module["module_call_graph"] if not entry["fqn"]]
    nodes = [node | {"metadata": {}} for node in module["graph"]["nodes"]]
    module = module | {
        "graph": module["graph"] | {"nodes": nodes},
        "module_call_graph": calls,
        "metadata": {},
        "treespec_namedtuple_fields": {},
    }
    for key, text in _texts(module, "graph_module"):
        if key == "target":
            _require(_TARGET.fullmatch(text), "it calls", text)
        elif key in _NAMED:
            _require(_NAME.fullmatch(text), "it names", text)
        elif key == "expr_str":
            _check_sum(text)
        elif key in ("in_spec", "out_spec"):
            _check_tree(json.loads(text))
        else:
            _require(_PLAIN.fullmatch(text), "it holds", text)
    ranges = model["range_constraints"]
    for _, text in _texts(ranges, ""):
        _require(_PLAIN.fullmatch(text), "it holds", text)
    return {
        "graph_module": module,
        "range_constraints": ranges,
        "opset_version": {str(k): int(v) for k, v in model["opset_version"].items()},
        "schema_version": {k: int(model["schema_version"][k]) for k in ("major", "minor")},
        "verifiers": [v for v in model["verifiers"] if _PLAIN.fullmatch(v)],
        "torch_version": "",
        "guards_code": [],
    }


def _checked_payload(kind: str, payload: dict[str, Any]) -> dict[str, Any]:
    config = payload["config"]
    for name, told in config.items():
        _require(told["use_pickle"] is False, f"of its {kind} a pickle is", name)
        _require(re.fullmatch(r"(weight|tensor)_\d+", told["path_name"]), "it reads", name)
        for _, text in _texts(told, name):
            _require(_PLAIN.fullmatch(text), "it holds", text)
    return {"config": config}


def _texts(value: object, key: str) -> Iterator[tuple[str, str]]:
    """Every text with the key that it stands behind, and every key with none."""
    if isinstance(value, dict):
        for inner, held in value.items():
            yield "", inner
            if inner in _OUTSIDE:
                raise RefusedError(f"it holds {inner!r}")
            yield from _texts(held, inner)
    elif isinstance(value, list):
        for held in value:
            yield from _texts(held, key)
    elif isinstance(value, str):
        yield key, value


def _require(holds: object, what: str, text: str) -> None:
    if not holds:
        raise RefusedError(f"{what} {text[:60]!r}")


def _check_sum(text: str) -> None:
    """Refuse what is more than arithmetic on the sizes of tensors; sympy would evaluate it."""
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError:
        raise RefusedError(f"it computes {text[:60]!r}") from None
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)):
                fine = name in _ARITHMETIC
            case ast.Name(id=name):
                fine = name in _ARITHMETIC or bool(_SYMBOL.fullmatch(name))
            case ast.Constant(value=str() as value):
                fine = bool(_SYMBOL.fullmatch(value) or re.fullmatch(r"-?[\d.]+", value))
            case ast.Constant(value=value):
                fine = isinstance(value, bool | int | float)
            case ast.keyword(arg=name):
                fine = name is not None
            case ast.Expression() | ast.BinOp() | ast.UnaryOp() | ast.Compare() | ast.Load():
                fine = True
            case ast.operator() | ast.unaryop() | ast.cmpop():
                fine = True
            case _:
                fine = False
        _require(fine, "it computes", text)


def _check_tree(tree: Any) -> None:
    """Refuse inputs and outputs in anything else than tuples, lists and dictionaries."""
    children = [tree[1]]
    while children:
        spec = children.pop()
        _require(spec["type"] is None or spec["type"] in _TREES, "it takes", str(spec["type"]))
        for name in json.loads(spec["context"]) or [] if spec["context"] else []:
            _require(_NAME.fullmatch(str(name)), "it names", str(name))
        children += spec["children_spec"]
