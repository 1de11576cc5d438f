"""A small reasoning model that comes with the factory, so that everything can be seen working without a download."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

# Names that a job may give as `teacher.model`.
SHIPPED_MODELS: Final = {"demo": Path(str(files("jobs.demo_teacher") / "weights"))}
