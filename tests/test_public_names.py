import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import robustbench_lite

NAMES = [
    "Access",
    "Attack",
    "Cascade",
    "Classifier",
    "Dataset",
    "InputError",
    "Loss",
    "Lp",
    "Norm",
    "Oracle",
    "Outcome",
    "RblError",
    "Record",
    "Restarts",
    "Rng",
    "Split",
    "State",
    "Stream",
    "Targeted",
    "Threat",
    "Training",
    "UnsupportedError",
    "Untargeted",
    "Walk",
    "Wrapping",
    "WrongModelError",
    "evaluate",
    "load_attack",
    "load_data",
    "load_defense",
    "load_model",
    "open_data",
    "worst_case",
]


def python(code: str, cwd: Path | None = None) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd).stdout


def test_the_public_names_are_exactly_these():
    assert robustbench_lite.__all__ == NAMES
    assert dir(robustbench_lite) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_leads_to_what_it_names(name):
    thing = getattr(robustbench_lite, name)
    assert thing.__name__ == name
    assert thing.__module__.startswith("robustbench_lite.")
    assert getattr(importlib.import_module(thing.__module__), name) is thing


def test_a_name_that_is_not_public():
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        _ = robustbench_lite.evalute


def test_attacks_and_defenses_are_imported_by_their_names():
    from rbl_attacks import CW, FGSM, PGD
    from rbl_defenses import PGDAT, Standard

    attacks = [robustbench_lite.load_attack(name) for name in ("cw", "fgsm", "pgd")]
    assert attacks == [CW(), FGSM(), PGD()]
    defenses = [robustbench_lite.load_defense(name) for name in ("pgd-at", "standard")]
    assert defenses == [PGDAT(), Standard()]


def test_importing_the_package_does_not_import_torch():
    code = "import sys, robustbench_lite; print('torch' in sys.modules)"
    assert python(code) == "False\n"


def test_an_unknown_setting_from_python_is_an_input_error():
    with pytest.raises(robustbench_lite.InputError, match="did you mean steps"):
        robustbench_lite.load_attack("pgd", stepz=3)
    with pytest.raises(robustbench_lite.InputError, match=r"steps.*'many'"):
        robustbench_lite.load_attack("pgd", steps="many")


def distribution(folder: Path, name: str, target: str) -> None:
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[robustbench_lite.attacks]\ntriangle = {target}\n")


LISTS_ATTACKS = """
from robustbench_lite.errors import InputError
from robustbench_lite.registry import Kind, registered
try:
    print(registered(Kind.ATTACKS)["triangle"].value)
except InputError as error:
    print("refused:", error)
"""


def test_two_distributions_cannot_claim_one_name(tmp_path):
    distribution(tmp_path, "first", "first_attacks:Triangle")
    assert python(LISTS_ATTACKS, tmp_path) == "first_attacks:Triangle\n"
    distribution(tmp_path, "second", "second_attacks:Triangle")
    said = python(LISTS_ATTACKS, tmp_path)
    assert said.startswith("refused: attacks: 'triangle' is registered by both ")
    assert "first_attacks:Triangle" in said
    assert "second_attacks:Triangle" in said
    assert "uninstall one" in said


def test_a_registered_name_whose_package_is_broken(tmp_path):
    distribution(tmp_path, "first", "no_such_module:Triangle")
    code = LISTS_ATTACKS.replace("registered(Kind.ATTACKS)['triangle']", "").replace(
        'registered(Kind.ATTACKS)["triangle"].value', "find(Kind.ATTACKS, 'triangle')"
    )
    said = python(code.replace("registered\n", "find\n"), tmp_path)
    assert said.startswith(
        "refused: attacks: 'triangle' (no_such_module:Triangle) cannot be imported"
    )
    assert "reinstall it" in said
