"""``foretune tune``: recommend, train once, evaluate, report, save."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional  # typer reads the annotations at run time

import typer

app = typer.Typer()

Data, Draws, Method, Run = "Data", "What is drawn", "Method and schedule", "Run"


def _option(panel: str, help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel)


Source = Annotated[str, typer.Argument(help="CSV, TSV, JSON Lines or Parquet file, datasets folder, Hub id or catalog name.")]
Text = Annotated[Optional[str], _option(Data, "Column of the text.")]
Pair = Annotated[Optional[str], _option(Data, "Column of the second text of a pair.")]
Label = Annotated[Optional[str], _option(Data, "Column of the label or number.")]
Prompt = Annotated[Optional[str], _option(Data, "Column of the prompt.")]
Response = Annotated[Optional[str], _option(Data, "Column of the response.")]
Choices = Annotated[Optional[list[str]], _option(Data, "Column of a candidate; once per candidate, or one list column.")]
Kind = Annotated[Optional[str], _option(Data, "classification, regression, choice or generation.")]
MetricName = Annotated[Optional[str], _option(Data, "What selects the checkpoint, e.g. accuracy, macro_f1, mcc, spearman.")]
Dev = Annotated[Optional[str], _option(Data, "File of the dev split.")]
Test = Annotated[Optional[str], _option(Data, "File of the test split.")]
Ood = Annotated[Optional[list[str]], _option(Data, "Out-of-domain test file, path or path:name; may be repeated.")]
DataDir = Annotated[Optional[str], _option(Data, "Where catalog tasks lie (also FORETUNE_DATA).")]
Shots = Annotated[Optional[int], _option(Draws, "Labelled examples per class (in total without classes), dev included.")]
DevFraction = Annotated[Optional[float], _option(Draws, "Share of the drawn labels that pays for model selection.")]
TestFraction = Annotated[Optional[float], _option(Draws, "Share of the rows held out when there is no test split.")]
Seed = Annotated[Optional[int], _option(Draws, "Seed of every random draw.")]
Model = Annotated[Optional[str], _option(Method, "Folder, Hub id, or demo (the packaged small encoder, the default).")]
Revision = Annotated[Optional[str], _option(Method, "Branch, tag or commit of a Hub id.")]
Pooling = Annotated[Optional[str], _option(Method, "cls, mean, last or eos; default: as the checkpoint was trained.")]
MaxLength = Annotated[Optional[int], _option(Method, "Longest text in tokens (256).")]
TrustRemoteCode = Annotated[bool, _option(Method, "Run Python code that comes with the model.", "--trust-remote-code")]
TunerName = Annotated[Optional[str], _option(Method, "Fine-tuning method; default: recommended.")]
TunerOption = Annotated[Optional[list[str]], _option(Method, "Option of the tuner, key=value; may be repeated.")]
ObjectiveName = Annotated[Optional[str], _option(Method, "What is minimised; default: by kind of task.")]
Lr = Annotated[Optional[float], _option(Method, "Peak learning rate of the tuner.")]
HeadLr = Annotated[Optional[float], _option(Method, "Peak learning rate of a fresh head.")]
Epochs = Annotated[Optional[float], _option(Method, "Passes over the training rows.")]
Steps = Annotated[Optional[int], _option(Method, "Optimizer steps, instead of epochs.")]
BatchSize = Annotated[Optional[int], _option(Method, "Examples per optimizer step.")]
MicroBatch = Annotated[Optional[int], _option(Method, "Examples per forward pass: less memory, same result.")]
WeightDecay = Annotated[Optional[float], _option(Method, "Decoupled weight decay of the matrices.")]
Warmup = Annotated[Optional[float], _option(Method, "Share of the steps with a rising rate.")]
Decay = Annotated[Optional[str], _option(Method, "linear, cosine or constant after the warm-up.")]
Clip = Annotated[Optional[float], _option(Method, "Largest gradient norm; 0 for none.")]
Evaluations = Annotated[Optional[int], _option(Method, "How often dev is measured.")]
Patience = Annotated[Optional[int], _option(Method, "Evaluations without a gain before training ends.")]
Precision = Annotated[Optional[str], _option(Method, "fp32 or bf16.")]
Budget = Annotated[Optional[str], _option(Run, "Wall time for the whole command: 90s, 20m, 1.5h.")]
Config = Annotated[Optional[Path], _option(Run, "YAML file with these options; the command line wins.")]
Json = Annotated[bool, _option(Run, "Print one JSON object instead of text.", "--json")]


@app.command()
def tune(
    source: Source,
    out: Annotated[Optional[Path], _option(Run, "Run folder; default runs/<task>-<tuner>-<identity>.")] = None,
    dry_run: Annotated[bool, _option(Run, "Print the plan and stop; trains nothing.", "--dry-run")] = False,
    overwrite: Annotated[bool, _option(Run, "Begin anew in a folder that holds another run.", "--overwrite")] = False,
    remember: Annotated[bool, _option(Run, "Add the record to the local store.", "--remember/--no-remember")] = True,
    text: Text = None,
    pair: Pair = None,
    label: Label = None,
    prompt: Prompt = None,
    response: Response = None,
    choices: Choices = None,
    kind: Kind = None,
    metric: MetricName = None,
    dev: Dev = None,
    test: Test = None,
    ood: Ood = None,
    data_dir: DataDir = None,
    shots: Shots = None,
    dev_fraction: DevFraction = None,
    test_fraction: TestFraction = None,
    seed: Seed = None,
    model: Model = None,
    revision: Revision = None,
    pooling: Pooling = None,
    max_length: MaxLength = None,
    trust_remote_code: TrustRemoteCode = False,
    tuner: TunerName = None,
    option: TunerOption = None,
    objective: ObjectiveName = None,
    lr: Lr = None,
    head_lr: HeadLr = None,
    epochs: Epochs = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    micro_batch: MicroBatch = None,
    weight_decay: WeightDecay = None,
    warmup: Warmup = None,
    decay: Decay = None,
    clip: Clip = None,
    evaluations: Evaluations = None,
    patience: Patience = None,
    precision: Precision = None,
    budget: Budget = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Recommend, train once, evaluate, report, save: the main job.

    Ctrl-C stops at the next step and keeps the state: the same command goes on from there.
    """
    values = {name: value for name, value in locals().items() if name in _TUNE_OPTIONS}
    run(source, values, config, out=out, dry_run=dry_run, overwrite=overwrite, remember=remember, json=json)


_TUNE_OPTIONS = frozenset(tune.__annotations__) - {
    "source", "out", "dry_run", "overwrite", "remember", "config", "json", "return",
}  # fmt: skip


def run(
    source: str,
    values: dict[str, Any],
    config: Path | None,
    *,
    out: Path | None,
    dry_run: bool,
    overwrite: bool,
    remember: bool,
    json: bool,
) -> None:
    """Merge YAML and command line, call the pipeline, print."""
    from foretune.cli.console import Shown, show_plan, show_result
    from foretune.cli.output import print_json
    from foretune.pipeline import prepare_plan
    from foretune.pipeline import tune as start
    from foretune.pipeline.options import make_options

    options = make_options(merge(values, config))
    shown = Shown(quiet=json)
    if dry_run:
        drafted = prepare_plan(source, options, say=shown.say)
        print_json(drafted.to_json()) if json else show_plan(shown, drafted)
        return
    result = start(source, options=options, out=out, overwrite=overwrite, remember=remember, progress=shown, say=shown.say)
    print_json(result.to_json()) if json else show_result(shown, result)


def merge(values: dict[str, Any], config: Path | None) -> dict[str, Any]:
    """The YAML file's options under those given on the command line."""
    from foretune.pipeline.options import read_yaml

    given = {name: value for name, value in values.items() if value not in (None, False, [], ())}
    return {**(read_yaml(config) if config else {}), **given}
