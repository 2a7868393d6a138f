"""Does a folder of images that memory cannot hold get attacked in little memory?

    python folder_memory.py               # 50,000 JPEGs of 224 x 224 (30 GB as floats), FGSM
    python folder_memory.py --n 10000 --side 64

10,000 images are written and linked under as many names as are needed, in 10 class folders. The
model is a small convolutional net, so that what is measured is what the images take. Both runs are
`rbl attack` in a process of its own; the first, on 64 images, tells what the program and the model
take.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

_DISTINCT = 10_000
_CLASSES = 10
_MODEL = """
from torch import nn


def make():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 10),
    )
"""


def main() -> None:
    """Write the folder, run twice, print the highest resident memory of each run."""
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        root = Path(scratch)
        (root / "net.py").write_text(_MODEL)
        started = time.perf_counter()
        write_folder(root / "images", options.n, options.side)
        print(f"{options.n} images written in {time.perf_counter() - started:.0f} s")
        few, _ = _run(root, options, 64)
        all_of_them, seconds = _run(root, options, options.n)
    as_floats = options.n * 3 * options.side**2 * 4 / 2**20
    print(f"images as floats    {as_floats:8.0f} MiB")
    print(f"64 images           {few:8.0f} MiB resident at the most")
    print(f"{options.n} images        {all_of_them:8.0f} MiB, {all_of_them - few:.0f} MiB more")
    print(f"time                {seconds:8.0f} s")


def write_folder(root: Path, n: int, side: int) -> None:
    """`n` names of at most 10,000 distinct JPEGs of `side` x `side` pixels, in 10 class folders."""
    rng = np.random.default_rng(0)
    for label in range(_CLASSES):
        (root / str(label)).mkdir(parents=True)
    for i in range(n):
        path = root / str(i % _CLASSES) / f"{i:06d}.jpg"
        if i < _DISTINCT:
            coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
            image.save(path, quality=85)
        else:
            j = i % _DISTINCT
            os.link(root / str(j % _CLASSES) / f"{j:06d}.jpg", path)


def _run(root: Path, options: argparse.Namespace, n: int) -> tuple[float, float]:
    """The highest resident memory of one attack in MiB, and its seconds."""
    rbl = Path(sys.executable).with_name("rbl")
    command = [rbl, "attack", "--model", "net.py:make", "--data", "folder:images"]
    command += ["--n", str(n), "--attack", options.attack, "--norm", "linf", "--eps", "4/255"]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"rbl attack ended with status {status}")
    return usage.ru_maxrss / 1024, time.perf_counter() - started


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=50_000)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--attack", default="fgsm")
    parser.add_argument("--scratch", default=None, help="where the images are written")
    return parser.parse_args()


if __name__ == "__main__":
    main()
