"""What cached keys and values are kept in."""

from __future__ import annotations

from enum import StrEnum

from intentrec_core.device import CPU
from intentrec_core.errors import ConfigError


class KvDtype(StrEnum):
    """The type of cached keys and values on the CPU. ``int8`` has a float32 scale for each play, layer and head."""

    FLOAT32 = "float32"
    INT8 = "int8"

    @classmethod
    def parse(cls, name: str) -> KvDtype:
        """The type of a name. Raises: ConfigError with what is allowed."""
        if name not in tuple(cls):
            raise ConfigError(f"kv_dtype is {name!r}; allowed: {', '.join(cls)}")
        return cls(name)

    def check_on(self, device: str) -> None:
        """Raises: ConfigError for int8 on another device than the CPU."""
        if device != CPU and self is not KvDtype.FLOAT32:
            raise ConfigError(
                f"kv_dtype is {self} and the device {device}; allowed: {self} on the CPU, or {KvDtype.FLOAT32}, with which "
                "a CUDA device keeps keys and values in float16"
            )
