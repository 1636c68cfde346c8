"""What MLX says of the device that a model computes on."""

import os

import mlx.core as mx


def device_memory(device: mx.Device) -> int:
    """Return the bytes that a process should use at most on a device.

    Metal recommends a limit; CUDA names the size of the GPU's memory; for the CPU it is the system's.
    """
    info = mx.device_info(device)
    for name in ("max_recommended_working_set_size", "total_memory"):
        if name in info:
            return int(info[name])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
