"""Where judged programs run: slots that hold them, from the caller's side. The other modules run inside the slots."""

from verifiers.sandbox.slots import (
    Compiled,
    Ran,
    Sandbox,
    SlotError,
    close_default_sandbox,
    default_sandbox,
    require_tier,
)

__all__ = ["Compiled", "Ran", "Sandbox", "SlotError", "close_default_sandbox", "default_sandbox", "require_tier"]
