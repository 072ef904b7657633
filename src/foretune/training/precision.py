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


def about_emulated(precision: str) -> str:
    """A sentence where training in ``precision`` would be far slower on this machine than it need be; else empty.

    Measured on a processor without such units: a product of matrices takes sixty times as long in bf16 as in fp32.
    """
    if precision != "bf16" or machine_precision() == "bf16":
        return ""
    return (
        "This machine has no units for bf16 and emulates it, tens of times slower than fp32. Use fp32, unless the "
        "numbers must be those of bf16."
    )
