"""How far the port may be from the official package, in float32, and why.

Both sides compute in float32 with sums in different orders; each layer adds a few units of rounding (6e-8). The bars
are the project's promise; what is measured lies below them (see the comments), while a missing epsilon, a wrong
window or a swapped norm lies far above.
"""

EMBEDDINGS = 1e-5  # relative: two matrix products and a sum; measured 4e-7
LOGITS = 1e-4  # relative: all layers over some 150 positions; measured 8e-7
TIE = 1e-5  # relative: two logits nearer than this may change places; ten times what is measured on logits
PROBABILITIES = 1e-6  # absolute: a softmax of equal logits; measured 1e-7
CODEC = 1e-5  # relative L2: some 30 layers, sines among them; measured 5e-6
MEL = 1e-4  # relative L2: the official float32 transform's own rounding next to a loud tone; measured 3e-5
SPEAKER = 1e-4  # relative: some 20 layers and a softmax over time
CODE_AGREEMENT = 0.999  # share of the encoder's choices; every other one must be a tie
CODE_TIE = 1e-5  # relative: two codebook vectors as near as this are equally near
ROUND_TRIP = 1e-4  # relative L2 of encode and decode
CHUNKED = 1e-5  # absolute, of a wave in -1 .. 1: the same sums in other blocks; measured 1e-6

# On a GPU matrix products run in other precisions (TF32 on CUDA, fused orders on Metal), and codes are compared
# teacher-forced: as a share that agrees, since one flipped near-tie changes all that follows.
GPU_LOGITS = 2e-2
GPU_CODEC = 2e-2
GPU_AGREEMENT = 0.98


def relative(found, expected) -> float:
    """Largest difference over the largest expected value."""
    return float(abs(found - expected).max() / abs(expected).max())


def relative_l2(found, expected) -> float:
    """Energy of the difference over the expected energy, as a root."""
    return float(((found - expected) ** 2).sum() ** 0.5 / (expected**2).sum() ** 0.5)
