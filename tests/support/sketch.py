"""Random projections, which keep golden arrays small. Needs only NumPy, because both environments use it."""

import zlib

import numpy as np

SIZE = 64  # of a projection; the L2 norm of one is that of the array up to some 20 %


def sketch(name: str, array: np.ndarray) -> np.ndarray:
    """Return the projection of an array to random signs, float32 [SIZE]; an array that is not larger as it is, flat.

    name: of the array; the signs depend on it alone.
    """
    flat = array.reshape(-1).astype(np.float64)
    if len(flat) <= SIZE:
        return flat.astype(np.float32)
    random = np.random.RandomState(zlib.crc32(name.encode()))
    signs = np.where(random.random_sample((SIZE, len(flat))) < 0.5, -1, 1)
    return (signs @ flat / SIZE**0.5).astype(np.float32)
