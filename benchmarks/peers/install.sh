#!/usr/bin/env bash
# Install the libraries that pgd.py and cw.py measure against: bash install.sh [python]
# Nothing that is already installed is changed: every present version is a constraint, and pip
# stops with an error where a peer cannot live with it.
set -euo pipefail

python=${1:-python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m pip freeze --exclude-editable | grep '==' >"$work/present.txt"
install() { "$python" -m pip install --constraint "$work/present.txt" "$@"; }

# What the peers need at run time besides torch, numpy and scipy (multiprocess: ART's AutoAttack).
install requests tqdm six eagerpy GitPython numba multiprocess

# torchattacks pins requests to 2.25 and adv-lib wants visdom, so both come without dependencies.
install --no-deps torchattacks foolbox adversarial-robustness-toolbox pyautoattack

# adv-lib imports visdom, whose setup script needs pkg_resources (gone in setuptools 81). The wheel
# is built in a throw-away environment, so that the setuptools of this one stays.
"$python" -m venv "$work/builder"
"$work/builder/bin/python" -m pip install 'setuptools<81' wheel
"$work/builder/bin/python" -m pip wheel --no-deps --no-build-isolation --wheel-dir "$work" visdom
install tornado websocket-client jsonpatch
install --no-deps "$work"/visdom-*.whl
install --no-deps adv-lib

"$python" - <<'CHECK'
from importlib.metadata import version

import adv_lib.attacks
import art.attacks.evasion
import foolbox
import pyautoattack
import torchattacks

names = "torch torchvision numpy torchattacks foolbox adversarial-robustness-toolbox adv-lib"
for name in [*names.split(), "pyautoattack", "visdom"]:
    print(f"{name} {version(name)}")
CHECK
