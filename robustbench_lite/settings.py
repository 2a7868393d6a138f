"""Hyper-parameters of attacks and defenses: checked by their type hints, whoever sets them."""

import math
from dataclasses import fields
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from robustbench_lite.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def check_fields(value: "DataclassInstance") -> None:
    """Check every field of a frozen dataclass by its hint, and turn texts into the hint's type.

    Bounds stand in the hint, as `Annotated[float, Field(gt=0)]`.

    Raises:
        InputError: a field is of the wrong type or out of its bounds.
    """
    hints = get_type_hints(type(value), include_extras=True)
    for field in fields(value):
        adapter: TypeAdapter[Any] = TypeAdapter(hints[field.name])
        try:
            checked = adapter.validate_python(getattr(value, field.name))
        except ValidationError as error:
            problem = f"{type(value).__name__}: {field.name}: {first_problem(error)}"
            raise InputError(problem) from error
        if isinstance(checked, float) and math.isnan(checked):
            raise InputError(f"{type(value).__name__}: {field.name} is NaN; give a number")
        object.__setattr__(value, field.name, checked)


def first_problem(error: ValidationError) -> str:
    """The first complaint of pydantic as one line: field, what is wrong, what was given."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    # What a constructor of ours complains of is a sentence already.
    cause = problem.get("ctx", {}).get("error")
    text = str(cause or problem["msg"])
    if cause is None and problem["type"] not in ("missing", "extra_forbidden"):
        text += f", not {problem['input']!r}"
    return f"{where}: {text}" if where else text
