"""``foretune tune``: recommend, train once, evaluate, report, save."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer()

Data, Method, Run, Draws, Course = "Data", "Model and method", "Run", "What is drawn", "Schedule"


def _option(panel: str, help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel)


Source = Annotated[
    str, typer.Argument(help="CSV, TSV, JSON Lines or Parquet file, datasets folder, Hub id or catalog name.")
]
Text = Annotated[str | None, _option(Data, "Column of the text, where the detected one is wrong.")]
Pair = Annotated[str | None, _option(Data, "Column of the second text of a pair.")]
Label = Annotated[str | None, _option(Data, "Column of the label or number.")]
Prompt = Annotated[str | None, _option(Data, "Column of the prompt, for models that write.")]
Response = Annotated[str | None, _option(Data, "Column of the response to the prompt.")]
Choices = Annotated[
    list[str] | None, _option(Data, "Column of one candidate answer, may be repeated; or one column that holds lists.")
]
Kind = Annotated[str | None, _option(Data, "classification, regression, choice or generation.")]
MetricName = Annotated[str | None, _option(Data, "What selects the checkpoint: accuracy, macro_f1, mcc, spearman, ...")]
Dev = Annotated[str | None, _option(Data, "File whose rows select the checkpoint; default: drawn from the data.")]
Test = Annotated[str | None, _option(Data, "File whose rows judge the result; default: drawn from the data.")]
Ood = Annotated[list[str] | None, _option(Data, "Test file from another domain, path or path:name; may be repeated.")]
DataDir = Annotated[str | None, _option(Data, "Where the files of catalog tasks lie (also FORETUNE_DATA).")]
Model = Annotated[str | None, _option(Method, "Folder or Hub id; default: demo, the small packaged encoder.")]
Revision = Annotated[str | None, _option(Method, "Branch, tag or commit of a Hub id.")]
Pooling = Annotated[str | None, _option(Method, "cls, mean, last or eos; default: as the checkpoint was trained.")]
MaxLength = Annotated[int | None, _option(Method, "Longest text in tokens (256); what is longer is cut and reported.")]
TrustRemoteCode = Annotated[
    bool | None, _option(Method, "Run Python code that comes with the model.", "--trust-remote-code")
]
TunerName = Annotated[str | None, _option(Method, "Fine-tuning method: lora, full, head, ...; default: recommended.")]
TunerOption = Annotated[
    list[str] | None, _option(Method, "Option of what --tuner names, key=value; or a flag: --tuner lora --rank 16.")
]
ObjectiveName = Annotated[str | None, _option(Method, "What is minimised; default: by kind of task.")]
ObjectiveOption = Annotated[list[str] | None, _option(Method, "Option of the objective, key=value; may be repeated.")]
Pretrain = Annotated[
    str | None, _option(Method, "Unlabelled texts (.txt: one a line) to go on pretraining on before the task.")
]
PretrainSteps = Annotated[int | None, _option(Method, "Optimizer steps on them (500).")]
PretrainLr = Annotated[float | None, _option(Method, "Peak learning rate on them (1e-4).")]
PretrainSeed = Annotated[int | None, _option(Method, "Seed of that stage (0): runs of all seeds share it.")]
HeldText = Annotated[
    str | None, _option(Method, "Texts to measure forgetting on: the language model's loss before and after.")
]
RecommenderName = Annotated[
    str | None, _option(Method, "Who chooses the pipeline: transfer (from earlier runs) or default (published).")
]
Mode = Annotated[
    str | None,
    _option(Method, "How transfer chooses: one-shot; portfolio, which runs a few; grey-box, which plays out a budget."),
]
Refit = Annotated[
    bool | None,
    _option(Method, "In the mode grey-box, learn again from what was seen of the task (off).", "--refit/--no-refit"),
]
Budget = Annotated[str | None, _option(Run, "Wall time for the whole command: 90s, 20m, 1.5h.")]
Config = Annotated[
    Path | None, _option(Run, "YAML file with options of the other panels; the command line wins over it.")
]
Explain = Annotated[bool, _option(Run, "Say everything that the plan rests on.", "--explain")]
Json = Annotated[bool, _option(Run, "Print one JSON object instead of text.", "--json")]
Shots = Annotated[int | None, _option(Draws, "Labelled examples per class (in total without classes), dev included.")]
DevFraction = Annotated[float | None, _option(Draws, "Share of the drawn labels that selects the checkpoint (0.25).")]
TestFraction = Annotated[float | None, _option(Draws, "Share held out when there are no test rows (0.2).")]
Seed = Annotated[int | None, _option(Draws, "Seed of every random draw (0).")]
Lr = Annotated[float | None, _option(Course, "Peak learning rate of the tuner.")]
HeadLr = Annotated[float | None, _option(Course, "Peak learning rate of a fresh head.")]
Epochs = Annotated[float | None, _option(Course, "Passes over the training rows.")]
Steps = Annotated[int | None, _option(Course, "Optimizer steps, instead of epochs.")]
BatchSize = Annotated[int | None, _option(Course, "Examples per optimizer step.")]
MicroBatch = Annotated[int | None, _option(Course, "Examples per forward pass: less memory, same result.")]
WeightDecay = Annotated[float | None, _option(Course, "Decoupled weight decay of the matrices.")]
Warmup = Annotated[float | None, _option(Course, "Share of the steps with a rising rate.")]
Decay = Annotated[str | None, _option(Course, "linear, cosine or constant after the warm-up.")]
Clip = Annotated[float | None, _option(Course, "Largest gradient norm; 0 for none.")]
Evaluations = Annotated[int | None, _option(Course, "How often dev is measured.")]
Patience = Annotated[int | None, _option(Course, "Evaluations without a gain before training ends; default: never.")]
Precision = Annotated[str | None, _option(Course, "fp32 or bf16.")]


@app.command()
def tune(
    source: Source,
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
    model: Model = None,
    revision: Revision = None,
    pooling: Pooling = None,
    max_length: MaxLength = None,
    trust_remote_code: TrustRemoteCode = None,
    tuner: TunerName = None,
    option: TunerOption = None,
    objective: ObjectiveName = None,
    objective_option: ObjectiveOption = None,
    pretrain: Pretrain = None,
    pretrain_steps: PretrainSteps = None,
    pretrain_lr: PretrainLr = None,
    pretrain_seed: PretrainSeed = None,
    held_text: HeldText = None,
    out: Annotated[Path | None, _option(Run, "Run folder; default: runs/<task>-<tuner>-<identity>.")] = None,
    recommender: RecommenderName = None,
    mode: Mode = None,
    refit: Refit = None,
    budget: Budget = None,
    dry_run: Annotated[bool, _option(Run, "Print the plan and stop; trains nothing.", "--dry-run")] = False,
    overwrite: Annotated[bool, _option(Run, "Begin anew in a folder that holds another run.", "--overwrite")] = False,
    explain: Explain = False,
    remember: Annotated[bool, _option(Run, "Add the record to the local store.", "--remember/--no-remember")] = True,
    config: Config = None,
    json: Json = False,
    shots: Shots = None,
    dev_fraction: DevFraction = None,
    test_fraction: TestFraction = None,
    seed: Seed = None,
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
) -> None:
    """Recommend, train once, evaluate, report, save: the main job.

    `foretune tune train.csv` is enough: columns are detected and shown, and everything else has a default. Ctrl-C stops
    at the next step and keeps the state; the same command goes on from there, and on a finished run does nothing.
    """
    values = {name: value for name, value in locals().items() if name not in COMMAND}
    run(
        source,
        values,
        config,
        out=out,
        dry_run=dry_run,
        overwrite=overwrite,
        remember=remember,
        explain=explain,
        json=json,
    )


COMMAND = ("source", "out", "dry_run", "overwrite", "remember", "config", "explain", "json")
"""What is asked of the command; the other parameters are the fields of ``pipeline.TuneOptions``."""


def run(
    source: str,
    values: dict[str, Any],
    config: Path | None,
    *,
    out: Path | None,
    dry_run: bool,
    overwrite: bool,
    remember: bool,
    explain: bool = False,
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
        drafted = prepare_plan(source, options, measure=True, say=shown.say)
        print_json(drafted.to_json()) if json else show_plan(shown, drafted, explain)
        return
    try:
        result = start(
            source, options=options, out=out, overwrite=overwrite, remember=remember, progress=shown, say=shown.say
        )
    finally:
        shown.finish()
    print_json(result.to_json()) if json else show_result(shown, result, explain)


def merge(values: dict[str, Any], config: Path | None) -> dict[str, Any]:
    """The YAML file's options under those given on the command line. A zero and a flag's no are given; None is not.

    >>> merge({"clip": 0.0, "lr": None, "refit": False, "ood": []}, None)
    {'clip': 0.0, 'refit': False}

    Raises:
        UsageError: the file cannot be read, or holds what is asked of the command and not of the run.
    """
    from foretune.errors import UsageError
    from foretune.pipeline.options import flag, read_yaml

    told = read_yaml(config) if config else {}
    for name in told:
        if name.replace("-", "_") in COMMAND:
            raise UsageError(f"`{name}` belongs on the command line (`{flag(name)}`), not in `{config}`.")
    given = {name: value for name, value in values.items() if value is not None and value != []}
    return {**{name.replace("-", "_"): value for name, value in told.items()}, **given}
