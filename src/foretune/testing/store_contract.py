"""StoreContract: the checks every store passes; a plug-in inherits them and says how to open its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from foretune.records import (
    Cost,
    Evaluation,
    Gap,
    LearningCurve,
    ModelRef,
    Part,
    Point,
    RunConfig,
    RunRecord,
    Schedule,
    Seeds,
    TaskCard,
    TaskRef,
)
from foretune.store import MemoryStore, Store


def toy_record(seed: int = 0, status: str = "ok", source: str = "toy.csv", tuner: str = "lora") -> RunRecord:
    """A made-up record with every field in use; another ``seed`` is another run.

    >>> toy_record(0).digest != toy_record(1).digest
    True
    """
    schedule = Schedule(steps=20, lr=2e-4)
    config = RunConfig(
        ModelRef("toy", pooling="mean"),
        TaskRef(source, "classification", {"text": "text", "label": "label"}),
        Part(tuner, {"rank": 8}),
        Part("head"),
        schedule,
        Seeds.all(seed),
    )
    if status in ("failed", "oom", "diverged"):
        return RunRecord(
            config, status, error="RuntimeError: made up", started=f"2026-11-01T10:00:{seed % 60:02d}+00:00"
        )
    points = (Point(10, "train", "loss", 0.5, 1.0), Point(20, "dev", "accuracy", 0.75, 2.0))
    return RunRecord(
        config,
        status,
        card=TaskCard("toy", "classification", {"train": 12, "dev": 4, "test": 40}, classes=2, majority=0.5),
        curve=LearningCurve(points),
        cost=Cost(train_seconds=2.0, eval_seconds=0.5, setup_seconds=1.0, peak_bytes=10_000_000),
        evaluations={
            "dev": Evaluation(4, {"accuracy": 0.75}),
            "test": Evaluation(40, {"accuracy": 0.8}, {"accuracy": (0.65, 0.9)}),
            "ood:other": Evaluation(40, {"accuracy": 0.6}, {"accuracy": (0.45, 0.74)}, flags=("one class only",)),
        },
        floors={"majority": {"test": Evaluation(40, {"accuracy": 0.5}, {"accuracy": (0.35, 0.65)})}},
        gaps=(Gap("other", "accuracy", 0.2, 0.02, 0.38),),
        chosen_step=20,
        steps_done=20,
        temperature=1.25,
        initial_hash="0123abcd",
        labels=("no", 'yes, "quoted"\nand é 字 \ud83d'),
        surroundings={"torch": "0"},
        notes=("2 texts were cut.",),
        warnings=("<script>alert(1)</script>",),
        started=f"2026-11-01T10:00:{seed % 60:02d}+00:00",
        finished=f"2026-11-01T10:01:{seed % 60:02d}+00:00",
    )


class StoreContract(ABC):
    """Inherit as ``class TestMyStore(StoreContract)`` and write ``open``; pytest does the rest.

    One test calls ``open`` again with the same folder: a store on disk finds what it held; one in memory says
    ``lasts = False``.
    """

    lasts = True

    @abstractmethod
    def open(self, folder: Path) -> Store:
        """The store under test; ``folder`` is empty at first and its own."""

    def test_a_fresh_store_is_empty(self, tmp_path: Path) -> None:
        store = self.open(tmp_path)
        assert len(store) == 0
        assert list(store) == []
        assert store.find("0" * 16) is None

    def test_it_gives_back_what_it_was_given_in_order(self, tmp_path: Path) -> None:
        store, reference = self.open(tmp_path), MemoryStore()
        for record in (toy_record(3), toy_record(1, "failed"), toy_record(2, "stopped"), toy_record(1, "oom")):
            store.append(record)
            reference.append(record)
        assert list(store) == list(reference)
        assert len(store) == 4

    def test_the_latest_record_of_a_digest_wins(self, tmp_path: Path) -> None:
        store = self.open(tmp_path)
        for record in (toy_record(0, "stopped"), toy_record(1), toy_record(0, "ok")):
            store.append(record)
        found = store.find(toy_record(0).digest)
        assert found is not None
        assert found.status == "ok"
        assert len(store) == 3

    def test_a_failed_run_is_remembered_without_a_score(self, tmp_path: Path) -> None:
        store = self.open(tmp_path)
        store.append(toy_record(0, "oom"))
        (record,) = store
        assert (record.status, record.evaluations) == ("oom", {})

    def test_iterating_while_appending_sees_a_settled_list(self, tmp_path: Path) -> None:
        store = self.open(tmp_path)
        store.append(toy_record(0))
        for _ in store:
            store.append(toy_record(1))
        assert len(store) == 2

    def test_another_object_on_the_same_place_finds_the_same_runs(self, tmp_path: Path) -> None:
        store = self.open(tmp_path)
        store.append(toy_record(0))
        assert list(self.open(tmp_path)) == ([toy_record(0)] if self.lasts else [])
