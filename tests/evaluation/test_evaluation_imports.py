"""Importing the room is cheap, and judging never loads a language model's library."""

import subprocess
import sys

HEAVY = ("scipy", "sklearn", "sacrebleu", "rouge_score", "nltk", "pyarrow")
NEVER = ("torch", "transformers", "peft", "datasets")


def loaded_after(code, names):
    asked = f"{code}; import sys; print(*[name for name in {names!r} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout.split()


def test_importing_the_room_loads_numpy_alone():
    assert loaded_after("import foretune.evaluation", (*HEAVY, *NEVER)) == []


def test_judging_texts_and_fitting_floors_load_no_torch():
    code = (
        "from foretune.evaluation import *; judge('generation', [['a b']], ['a c'], metric='chrf');"
        "floors('classification', Inputs(['a', 'b']), [0, 1], {'t': Inputs(['a'])})"
    )
    assert loaded_after(code, (*NEVER, "sklearn", "sacrebleu")) == ["sklearn", "sacrebleu"]
