"""Importing the verifiers is quick and loads nothing heavy: those libraries live in worker processes."""

import subprocess
import sys

HEAVY = (
    "ray",
    "vllm",
    "torch",
    "transformers",
    "datasets",
    "pyarrow",
    "math_verify",
    "reasoning_gym",
    "sympy",
    "numpy",
)


def test_importing_verifiers_loads_no_heavy_module() -> None:
    code = (
        "import sys, verifiers, verifiers.math, verifiers.readability, verifiers.logic\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
