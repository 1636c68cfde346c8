"""Tolerances between the port and the official package in float32, with their reasons.

Both sides compute in float32 and sum in different orders; each layer adds a few units of rounding (6e-8). The
tolerances are what the project guarantees. Measured differences lie below them (see the comments); the effect of a
missing epsilon, a wrong window or a swapped norm lies far above.
"""

EMBEDDINGS = 1e-5  # relative: two matrix products and a sum; measured 4e-7
LOGITS = 1e-4  # relative: all layers over about 150 positions; measured 8e-7
TIE = 1e-5  # relative: two logits closer than this may swap order; ten times the measured difference of logits
PROBABILITIES = 1e-6  # absolute: a softmax of equal logits; measured 1e-7
CODEC = 1e-5  # relative L2: about 30 layers, sines among them; measured 5e-6
MEL = 1e-4  # relative L2: the official float32 transform's own rounding next to a loud tone; measured 3e-5
SPEAKER = 1e-4  # relative: about 20 layers and a softmax over time
CODE_AGREEMENT = 0.999  # share of the encoder's choices that must be equal; every other choice must be a tie
CODE_TIE = 1e-5  # relative: two codebook vectors are tied if their distances differ by less than this
ROUND_TRIP = 1e-4  # relative L2 of encode and decode
CHUNKED = 1e-5  # absolute, of a wave in -1 .. 1: the same sums in other blocks; measured 1e-6

# On a GPU matrix products are rounded differently (TF32 on CUDA, fused orders on Metal). Codes are compared
# teacher-forced, as the share that agrees, since one flipped near-tie changes all later codes.
GPU_LOGITS = 2e-2
GPU_CODEC = 2e-2
GPU_AGREEMENT = 0.98


def relative(found, expected) -> float:
    """Return the largest difference, divided by the largest expected value."""
    return float(abs(found - expected).max() / abs(expected).max())


def relative_l2(found, expected) -> float:
    """Return the L2 norm of the difference, divided by the expected L2 norm."""
    return float(((found - expected) ** 2).sum() ** 0.5 / (expected**2).sum() ** 0.5)
