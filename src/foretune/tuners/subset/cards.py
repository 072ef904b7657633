"""README.md of a folder that holds a subset: how it is loaded, and the way to a format that needs no foretune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foretune.tuners.subset.lora import LoraFit

NATIVE = """\
---
library_name: foretune
tags: [foretune, dynamic-subset]
---

# {size:,} weights of a `{network}`

`adapter_model.safetensors` holds places, values and the base's own bits of the weights that were tuned, and the head
whole. The base must be the one it was trained on: `base_hash` in `adapter_config.json` decides.

```python
from foretune import SubsetModel

model = SubsetModel.from_pretrained(base, ".")
```

With that import `peft.PeftModel.from_pretrained(base, ".")` gives the same. **Without foretune PEFT does not know the
type and stops at `KeyError: 'DST'`.** Write a stock format where foretune is installed, and hand that over:

```python
model.export_to("supertuning", "for-peft")  # or "shira", "lora", or "full" for a whole model
```

Of a run of foretune: `foretune export RUN --to supertuning`.
"""

STOCK = """\
---
library_name: {library}
tags: [foretune]
---

# {title} of a `{network}`

Written by `export_to("{form}")` of foretune; loading it needs no foretune:

```python
{load}
```

{fit}
"""

PEFT = """\
from peft import PeftModel

model = PeftModel.from_pretrained(base, ".")  # `base`: the model that was tuned"""


def leave(folder: Path, text: str) -> None:
    """Write ``README.md`` into ``folder`` unless one is there."""
    path = folder / "README.md"
    if not path.exists():
        path.write_text(text, encoding="utf-8")


def native(network: str, size: int) -> str:
    """The page of a folder that only foretune loads.

    >>> "KeyError: 'DST'" in native("BertModel", 1000)
    True
    """
    return NATIVE.format(network=network, size=size)


def stock(form: str, network: str, fit: str) -> str:
    """The page of a folder in the format ``form``, which holds the subset as well as ``fit`` says."""
    whole = form == "full"
    load = f'from transformers import {network}\n\nmodel = {network}.from_pretrained(".")' if whole else PEFT
    title = {"full": "A tuned copy", "lora": "A low-rank approximation of a tuned copy"}.get(form, "A sparse delta")
    library = "transformers" if whole else "peft"
    return STOCK.format(form=form, network=network, library=library, title=title, load=load, fit=fit)


def loss(fit: LoraFit) -> str:
    """What a low-rank form has lost, in sentences and a table by matrix."""
    outputs = "" if fit.outputs is None else f" On a probe batch the outputs differ by up to {fit.outputs:.3g}."
    rows = "\n".join(f"| `{name}` | {error:.2g} |" for name, error in fit.by_matrix.items())
    return f"{lost(fit)}{outputs} `supertuning` and `full` lose nothing of it.\n\n| Matrix | Lost |\n|---|---|\n{rows}"


def lost(fit: LoraFit) -> str:
    """The same in one sentence.

    >>> from foretune.tuners.subset.lora import LoraFit
    >>> lost(LoraFit(100, 4, 256, 0.25, {"query": 0.2, "value": 0.3}))
    'Rank 4 loses 0.25 of the change of 100 weights (relative Frobenius norm), at worst 0.3 in one matrix.'
    """
    return (
        f"Rank {fit.rank} loses {fit.relative_error:.2g} of the change of {fit.weights} weights (relative Frobenius "
        f"norm), at worst {max(fit.by_matrix.values()):.2g} in one matrix."
    )
