"""Describe a machine as far as it explains a speed: chip, memory and operating system."""

import os
import platform
from typing import NamedTuple

import mlx.core as mx


class Machine(NamedTuple):
    """A machine, and the device of it that a model computes on."""

    chip: str
    memory: int  # bytes; of a GPU that has its own memory, the size of that
    system: str  # name and version of the operating system


def describe(device: mx.Device) -> Machine:
    """Describe this machine; device: what the model computes on."""
    info = mx.device_info(device)
    chip = str(info.get("device_name") or platform.processor() or platform.machine())
    if device.type == mx.cpu:
        chip = f"{chip}, {os.cpu_count()} cores, CPU"
    return Machine(chip, _memory(info), _system())


def _memory(info: dict[str, str | int]) -> int:
    """Return the bytes of a GPU's memory (Metal: memory_size, CUDA: total_memory), or else of the system's."""
    for name in ("memory_size", "total_memory"):
        if name in info:
            return int(info[name])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _system() -> str:
    """Return the name and version of the system, as in "macOS 15.5" or "Linux 6.8.0, x86_64"."""
    mac_version = platform.mac_ver()[0]
    if mac_version:
        return f"macOS {mac_version}"
    release = platform.release().split("-")[0]
    return f"{platform.system()} {release}, {platform.machine()}"
