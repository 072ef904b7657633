"""Where bf16 pays: which number format the matrix products of training use by default on this machine."""

from __future__ import annotations


def machine_precision() -> str:
    """``bf16`` where the hardware multiplies it natively, otherwise ``fp32``.

    Elsewhere bf16 is emulated and slower. Weights, optimizer and everything recorded stay in fp32 either way.
    """
    import torch

    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return "bf16" if any(getattr(torch.cpu, name, lambda: False)() for name in checks) else "fp32"
