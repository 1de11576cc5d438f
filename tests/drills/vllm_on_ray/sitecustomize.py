"""On ``PYTHONPATH`` of a drill: gives vLLM's CPU platform the one word that its Ray executor lacks there.

vLLM 0.32 knows of its CPU build no Ray resource (``ray_device_key``) and refuses to be placed by Ray; all else works.
The drill's nodes have made-up GPUs, so that is the word.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

PLATFORM = "vllm.platforms.cpu"


class _Finder:
    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        if name != PLATFORM:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        execute = spec.loader.exec_module

        def execute_and_name(module: ModuleType) -> None:
            execute(module)
            module.CpuPlatform.ray_device_key = "GPU"

        spec.loader.exec_module = execute_and_name
        return spec


sys.meta_path.insert(0, _Finder())
