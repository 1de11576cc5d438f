"""Run the programs that the demo teacher wrote, in processes of their own, and compare outside of them.

For measuring only, and for this model only: it knows a few dozen kinds of functions by heart. A limited process is no
sandbox; the factory's verifier has one.
"""

import json
import re
import subprocess
import sys
import tempfile
from functools import lru_cache

from jobs.demo_teacher.programs import Task

FENCE = re.compile(r"```python\n(.*?)\n```", re.DOTALL)
TIMEOUT_S = 10.0  # wall clock, for all tests of a task; right programs need some 20 ms, the start of Python included
CPU_S, MEMORY_BYTES = 5, 1 << 29  # guesses: far above what any right program needs

# Reads the program and its calls, answers one line: for each call its value as JSON text, or null where there is none.
CHILD = f"""
import json, resource, sys
for name, limit in [("CPU", {CPU_S}), ("AS", {MEMORY_BYTES}), ("FSIZE", 0), ("CORE", 0)]:
    resource.setrlimit(getattr(resource, "RLIMIT_" + name), (limit, limit))
code, entry, calls = json.load(sys.stdin)
namespace = {{"__name__": "program"}}
exec(code, namespace)
results = []
for args in calls:
    try:
        results.append(json.dumps(namespace[entry](*args)))
    except Exception:
        results.append(None)
print("\\n" + json.dumps(results))
"""


def last_program(response: str) -> str | None:
    """Return the last fenced Python block of a text, or None."""
    blocks = FENCE.findall(response)
    return blocks[-1] if blocks else None


@lru_cache(maxsize=16384)
def passes_tests(program: str, task: Task) -> bool:
    """Return whether a program returns what every test of a task expects, as the same JSON text."""
    calls = [json.loads(case.args) for case in task.cases]
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", "-c", CHILD],
                input=json.dumps([program, task.entry, calls]).encode(),
                capture_output=True,
                timeout=TIMEOUT_S,
                cwd=folder,
                env={},
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return False
    try:
        return bool(json.loads(lines[-1]) == [case.expected for case in task.cases])
    except ValueError:  # a program that prints after its last call
        return False
