"""Studies exported and imported: what leaves, what comes in, what is refused, what is never removed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.testing.compare import compare_images

from advprune_core.analysis.pages import write_page
from advprune_core.base.files import json_digest
from advprune_core.base.settings import ConfigError
from advprune_core.study.archive import Exported, export_study
from advprune_core.study.executed import execute
from advprune_core.study.grid import study_grid
from advprune_core.study.incoming import import_study
from advprune_core.study.packed import PACKED, read_packed, write_packed
from advprune_core.study.plans import plan
from advprune_core.study.records import OWN_WEIGHTS, Timing
from advprune_core.study.runner import run_study
from advprune_core.study.runs import load_run
from advprune_core.study.store import RunStore
from advprune_core.study.study import study_config
from advprune_core.study.table import collect
from advprune_core.study.upkeep import check_results
from tests.made_up import evaluation_record, run_record, write_finished
from tests.tiny import TINY_STUDY, tiny_study

STUDY: dict[str, Any] = {"seeds": [0], "timed_repeats": 1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results folder of a tiny study: full data, 40 % of it, and the control of that."""
    results = tmp_path_factory.mktemp("results")
    run_study(tiny_study(results, **STUDY), progress=False)
    write_finished(RunStore(results), run_record("unrelated"))
    (results / "tiny" / "table.csv").write_text("a\n1\n")
    return results


@pytest.fixture
def exported(trained: Path, tmp_path: Path) -> Path:
    export_study("tiny", tmp_path / "copy", results=trained)
    return tmp_path / "copy"


@pytest.fixture
def unpacked(exported: Path) -> Path:
    """An export as earlier versions made it: each record a file of its own."""
    for name, text in read_packed(exported / PACKED).items():
        (exported / name).parent.mkdir(parents=True, exist_ok=True)
        (exported / name).write_bytes(text)
    (exported / PACKED).unlink()
    return exported


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without_digests(folder: Path) -> None:
    """Turn records into those of the first version."""
    for path in folder.rglob("*.json"):
        content = json.loads(path.read_text())
        for name in ("digest", "provenance", "canonical", "files", "weights", "former"):
            content.pop(name, None)
        content.get("config", {}).pop("speed", None)  # nor a setting that came later
        path.write_text(json.dumps({**content, "schema_version": 1}))


def test_export_has_everything_but_weights(trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    assert export_study("tiny", copy, results=trained) == Exported(runs=3, missing=[])
    pd.testing.assert_frame_equal(collect(copy, study="tiny"), collect(trained, study="tiny"))
    names = set(files_below(copy))
    assert names == {"manifest.json", "table.csv", PACKED}
    packed = read_packed(copy / PACKED)
    files = {name: text for name, text in files_below(trained).items() if name.startswith("runs/")}
    written = {name for name in files if name.endswith(".json") and "unrelated" not in name}
    assert set(packed) == written
    assert all(json.loads(packed[name]) == json.loads(files[name]) for name in written), "digests and all"
    assert len(pd.read_json(copy / PACKED, lines=True)) == len(written)
    assert check_results(copy) == []
    before = (copy / PACKED).read_bytes()
    export_study("tiny", copy, results=trained)
    assert (copy / PACKED).read_bytes() == before, "the same records, the same bytes"
    with pytest.raises(ConfigError, match=r"no study 'tinny'.*did you mean 'tiny'"):
        export_study("tinny", tmp_path / "b", results=trained)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    "target", ["results", "results/tiny", "results/runs", "results/runs/mine", "file", "full", "results/mine", "copy"]
)
def test_export_removes_nothing_of_others(trained: Path, tmp_path: Path, target: str) -> None:
    results = tmp_path / "results"
    shutil.copytree(trained, results)
    (tmp_path / "file").write_text("mine")
    write_finished(RunStore(tmp_path / "full"), run_record("other"))
    other = RunStore(results).manifest("tiny").model_copy(update={"study": "mine"})
    for folder in (results / "mine", tmp_path / "copy"):  # another study's own folder, an export of another one
        RunStore(results).write_manifest(other, folder)
    before = files_below(tmp_path)
    with pytest.raises(ConfigError, match=r"name another folder|is a file|not an earlier export|has the study 'mine'"):
        export_study("tiny", tmp_path / target, results=results)
    assert files_below(tmp_path) == before


def test_an_earlier_export_is_replaced_and_own_files_in_it_stay(trained: Path, exported: Path) -> None:
    (exported / "notes.md").write_text("mine")
    (exported / "runs" / "gone").mkdir(parents=True)
    (exported / "runs" / "gone" / "record.json").write_text("of an earlier grid")
    (exported / "table.csv").write_text("old")
    export_study("tiny", exported, results=trained)
    assert (exported / "notes.md").read_text() == "mine"
    assert (exported / "table.csv").read_text() == "a\n1\n"
    assert not (exported / "runs" / "gone").exists()
    assert not list(exported.parent.glob(".copy*")), "nothing is left beside it"


def test_an_imported_study_is_finished_without_weights(exported: Path, trained: Path, tmp_path: Path) -> None:
    root = tmp_path / "elsewhere"
    found = import_study(exported, results=root)
    assert (len(found.runs), found.there, found.without_digests, found.refused) == (3, [], [], {})
    assert not list(root.rglob("*.pt"))
    result = run_study(tiny_study(root, **STUDY), progress=False)
    assert (result.trained, result.evaluated, result.without_weights) == (0, 0, [])
    pd.testing.assert_frame_equal(result.table, collect(trained, study="tiny"))
    assert {RunStore(root).run(key).provenance for key in found.runs} == {"imported"}
    assert check_results(root) == []
    again = import_study(exported, results=root)
    assert (again.runs, sorted(again.there)) == ([], sorted(found.runs))


def test_a_copy_has_no_other_study(exported: Path) -> None:
    with pytest.raises(ConfigError, match=r"is a copy of the study 'tiny', and has no 'tinny'"):
        collect(exported, study="tinny")


def test_what_was_tested_of_other_weights_does_not_come_in(trained: Path, tmp_path: Path) -> None:
    """The same key on another kind of processor: other last digits, other weights, other outcomes."""
    here, there = (RunStore(Path(shutil.copytree(trained, tmp_path / name))) for name in ("here", "there"))
    entry = here.manifest("tiny").entries[0]
    record = there.run(entry.key)
    assert record is not None
    rows = [{**row, "train_loss": row["train_loss"] + 1e-6} for row in record.epochs]
    there.keep_run(record.model_copy(update={"epochs": rows}))
    here.evaluation_file(entry.key, entry.evaluation).unlink()
    found = import_study(there.results, results=here.results)
    assert (entry.key in found.there, found.otherwise) == (True, [entry.key])
    assert here.evaluation(entry.key, entry.evaluation) is None
    same = import_study(trained, results=here.results)
    assert same.otherwise == []
    assert here.evaluation(entry.key, entry.evaluation) is not None


def test_a_run_that_failed_here_comes_in(exported: Path, trained: Path, tmp_path: Path) -> None:
    here, entry = RunStore(tmp_path / "here"), RunStore(trained).manifest("tiny").entries[0]
    record = RunStore(trained).run(entry.key)
    assert record is not None
    here.keep_run(record.model_copy(update={"status": "failed", "error": "MemoryError", "files": {}}))
    found = import_study(exported, results=here.results)
    assert (entry.key in found.runs, found.there) == (True, [])
    again = run_study(tiny_study(here.results, **STUDY), progress=False)
    assert (again.trained, again.evaluated) == (0, 0)


def test_a_run_that_failed_has_no_accuracy(trained: Path, tmp_path: Path) -> None:
    here = RunStore(Path(shutil.copytree(trained, tmp_path / "here")))
    entry = here.manifest("tiny").entries[0]
    record = here.run(entry.key)
    assert record is not None
    here.keep_run(record.model_copy(update={"status": "failed"}))
    table = collect(here.results, study="tiny")
    assert (table["robust"].isna() == (table["key"] == entry.key)).all()


def test_a_new_attack_on_an_imported_run_trains_only_if_told(exported: Path, trained: Path, tmp_path: Path) -> None:
    root = tmp_path / "elsewhere"
    import_study(exported, results=root)
    attacked = tiny_study(root, **STUDY, evaluation=[{"pgd": {"steps": 3}}])
    result = run_study(attacked, progress=False)
    assert (result.trained, result.evaluated, len(result.without_weights)) == (0, 0, 3)
    result = run_study(attacked, progress=False, retrain=True)
    assert (result.trained, result.evaluated, result.without_weights) == (3, 3, [])
    for key in RunStore(trained).run_keys():
        if key != "unrelated":
            assert RunStore(root).run(key).comparable() == RunStore(trained).run(key).comparable()
            assert len(RunStore(root).evaluations(key)) == 2, "the same weights: what was tested holds"


def test_what_is_tested_is_not_trained_for_weights_that_nothing_needs(exported: Path, tmp_path: Path) -> None:
    root = tmp_path / "elsewhere"
    import_study(exported, results=root)
    config, store = tiny_study(root, **STUDY), RunStore(root)
    retrained = config.execution.replace(retrain=True)
    assert "at most 0 to train" in plan(study_grid(config), retrained)
    assert run_study(config, progress=False, retrain=True).trained == 0
    (lost,) = (entry for entry in store.manifest("tiny").entries if entry.fraction < 1 and not entry.control)
    store.evaluation_file(lost.key, lost.evaluation).unlink()
    assert "at most 0 to train" in plan(study_grid(config), config.execution)
    told = plan(study_grid(config), retrained)
    assert ("at most 1 to train" in told, told.count("to do again")) == (True, 1)
    result = run_study(config, progress=False, retrain=True)
    assert (result.trained, result.evaluated, result.without_weights) == (1, 1, [])
    assert [key for key in store.run_keys() if (store.folder(key) / "last.pt").exists()] == [lost.key]


@pytest.mark.filterwarnings("ignore:.*came out otherwise")
@pytest.mark.parametrize("otherwise", [False, True])
def test_a_run_that_is_trained_again_is_tested_in_all_the_ways_that_it_lacks(otherwise: bool, tmp_path: Path) -> None:
    both = tiny_study(
        tmp_path, **TINY_STUDY | {"fractions": [1.0], "controls": [], "variants": {"one": {}, "two": {}}},
        parts=[{"variants": ["one"]}, {"variants": ["two"], "evaluation": [{"pgd": {"steps": 3}}]}],
    )  # fmt: skip
    run_study(both, progress=False)
    store = RunStore(tmp_path)
    (key,) = store.run_keys()
    record = store.run(key)
    assert record is not None
    if otherwise:  # as where another processor has trained it
        epochs = [{**row, "train_loss": 1.0} for row in record.epochs]
        store.keep_run(record.model_copy(update={"epochs": epochs}))
    (store.folder(key) / "last.pt").unlink()
    lost = store.manifest("tiny").entries[1]
    store.evaluation_file(key, lost.evaluation).unlink()
    result = run_study(both, progress=False, retrain=True)
    assert (result.trained, result.evaluated, result.without_weights) == (1, 1 + otherwise, [])


def test_records_of_the_first_version_are_accepted_once_and_marked(
    unpacked: Path, trained: Path, tmp_path: Path
) -> None:
    exported = unpacked
    without_digests(exported)
    with pytest.raises(ConfigError, match=r"advprune import .*copy. accepts"):
        collect(exported, study="tiny")
    root = tmp_path / "elsewhere"
    found = import_study(exported, results=root)
    assert sorted(found.without_digests) == sorted(found.runs)
    assert found.other_code == [], "today's code gives these settings the same keys"
    assert run_study(tiny_study(root, **STUDY), progress=False).trained == 0
    assert {RunStore(root).run(key).provenance for key in found.runs} == {"imported without digests"}
    assert check_results(root) == []
    third = tmp_path / "third"
    assert import_study(root, results=third).without_digests == [], "they have digests now"
    assert {RunStore(third).run(key).provenance for key in found.runs} == {"imported without digests"}, "and the mark"
    other = tiny_study(root, **STUDY, evaluation=[{"pgd": {"steps": 3}}])
    assert len(run_study(other, progress=False).without_weights) == 3
    with pytest.raises(ConfigError, match="advprune evaluate --retrain"):
        load_run(found.runs[0], root).weights()
    again = run_study(other, progress=False, retrain=True)
    assert (again.trained, again.evaluated, again.without_weights) == (3, 3, [])
    assert {len(RunStore(root).evaluations(key)) for key in found.runs} == {2}, (
        "the same weights: what was tested holds"
    )


def test_an_old_results_folder_accepts_its_own_records(trained: Path, tmp_path: Path) -> None:
    root = tmp_path / "results"
    shutil.copytree(trained, root)
    without_digests(root)
    assert len(import_study(root, results=root).without_digests) == 3 + 1
    other = tiny_study(root, **STUDY, evaluation=[{"pgd": {"steps": 3}}])
    result = run_study(other, progress=False)
    assert (result.trained, result.evaluated, result.without_weights) == (0, 3, []), "its weights are accepted, too"


def test_a_results_folder_comes_with_its_weights(trained: Path, tmp_path: Path) -> None:
    damaged = min(Path(shutil.copytree(trained, tmp_path / "from")).glob("runs/*/last.pt"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    import_study(tmp_path / "from", results=tmp_path / "to")
    names = {path.parent.name for path in (tmp_path / "to").glob("runs/*/last.pt")}
    assert names == {path.parent.name for path in trained.glob("runs/*/last.pt")} - {damaged.parent.name}


def test_a_study_that_has_grown_is_all_here(trained: Path, exported: Path, tmp_path: Path) -> None:
    manifest, here = RunStore(trained).manifest("tiny"), RunStore(tmp_path / "here")
    early = manifest.model_copy(update={"entries": manifest.entries[:1], "former": ["given up"]})
    here.write_manifest(early, here.results / "tiny")
    assert import_study(exported, results=here.results).other_manifests == []
    assert (here.manifest("tiny").entries, here.manifest("tiny").former) == (manifest.entries, ["given up"])
    RunStore(exported).write_manifest(early, exported)
    assert import_study(exported, results=here.results).other_manifests == [], "an earlier state lacks nothing"
    assert here.manifest("tiny").entries == manifest.entries
    moved = [manifest.entries[0].model_copy(update={"seed": 9})]
    RunStore(exported).write_manifest(manifest.model_copy(update={"entries": moved}), exported)
    found = import_study(exported, results=here.results)
    assert found.other_manifests == [str(here.results / "tiny" / "manifest.json")]
    assert here.manifest("tiny").entries == manifest.entries


def test_weights_follow_records_that_came_first(trained: Path, exported: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "from")
    damaged, *sound = sorted((tmp_path / "from").glob("runs/*/last.pt"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    import_study(exported, results=tmp_path / "to")
    assert not list((tmp_path / "to").glob("runs/*/last.pt"))
    found = import_study(tmp_path / "from", results=tmp_path / "to")
    assert list(found.refused) == [str(damaged)]
    names = {path.parent.name for path in (tmp_path / "to").glob("runs/*/last.pt")}
    assert names == {path.parent.name for path in sound}
    assert not RunStore(tmp_path / "to").damaged(RunStore(trained).run(sound[0].parent.name))  # type: ignore[arg-type]


def test_what_was_tested_of_own_weights_comes_in(tmp_path: Path) -> None:
    store, key = RunStore(tmp_path / "from"), f"{OWN_WEIGHTS}1"
    for name in ("good", "bad"):
        store.write_evaluation(evaluation_record(name, key, [True, False], {"pgd": [True, False]}))
    (bad := store.evaluation_file(key, "bad")).write_text("{")
    found = import_study(store.results, results=tmp_path / "to")
    assert (found.own_weights, list(found.refused)) == ([key], [str(bad)])
    assert [record.provenance for record in RunStore(tmp_path / "to").evaluations(key)] == ["imported"]
    assert import_study(store.results, results=tmp_path / "to").own_weights == []


def sealed_again(path: Path, **changes: Any) -> None:
    """A forged record whose digest is right."""
    content = {**json.loads(path.read_text()), **changes}
    content.pop("digest")
    path.write_text(json.dumps({**content, "digest": json_digest(content)}))


def test_every_timing_of_a_run_comes_in_once(tmp_path: Path) -> None:
    """Seconds of another training alone are more of them, whichever of two studies that share a run came first."""

    def folder(name: str, *, alone: bool, seconds: float, repeats: list[float]) -> Path:
        store = RunStore(tmp_path / name)
        times = {"seconds": {"train": seconds}, "cpu_seconds": {"train": seconds}}
        write_finished(store, run_record("run", timed_alone=alone, environment={"device": name}, **times))
        for repeat in repeats:
            store.write_timing("run", Timing(seconds={"train": repeat}, cpu_seconds={"train": repeat}))
        return tmp_path / name

    beside = folder("beside", alone=False, seconds=9.0, repeats=[3.0])
    alone = folder("alone", alone=True, seconds=1.0, repeats=[2.0, 3.0])
    for source in (beside, alone, alone, beside):
        import_study(source, results=tmp_path / "here")
    store = RunStore(tmp_path / "here")
    record = store.run("run")
    assert record is not None
    assert (record.seconds, record.timed_alone) == ({"train": 9.0}, False)
    assert sorted(timing.seconds["train"] for timing in store.timings("run")) == [1.0, 2.0, 3.0]
    assert [t.environment for t in store.timings("run") if t.seconds["train"] == 1.0] == [{"device": "alone"}]
    import_study(tmp_path / "here", results=tmp_path / "here")
    assert len(store.timings("run")) == 3


def test_import_refuses_what_was_altered(unpacked: Path, tmp_path: Path) -> None:
    exported = unpacked
    one, two, three = sorted(exported.glob("runs/*/record.json"))
    one.write_text(one.read_text().replace('"seed": 0', '"seed": 1'))
    sealed_again(two, key="0" * 16)
    (evaluation,) = three.parent.glob("evaluations/*.json")
    evaluation.write_text(evaluation.read_text()[:-40])
    root = tmp_path / "elsewhere"
    found = import_study(exported, results=root)
    assert set(found.refused) == {str(one), str(two), str(evaluation)}
    assert found.runs == [three.parent.name]
    result = run_study(tiny_study(root, **STUDY), progress=False, retrain=True)
    assert result.trained == 3


@pytest.mark.parametrize("name", ["../0123456789abcdef/last.pt", "/tmp/last.pt", "record.json"])
def test_import_copies_the_files_of_a_run_alone(trained: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(trained, tmp_path / "foreign")
    record = min((tmp_path / "foreign").glob("runs/*/record.json"))
    (record.parent / "last.pt").write_bytes(b"foreign")
    sealed_again(record, files={name: "0" * 64})
    found = import_study(tmp_path / "foreign", results=tmp_path / "own")
    assert "is no file of a run" in found.refused[str(record)]


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "..", ""])
def test_a_study_is_imported_into_a_folder_of_its_own(trained: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(trained, tmp_path / "foreign")
    manifest = tmp_path / "foreign" / "tiny" / "manifest.json"
    sealed_again(manifest, study=name)
    found = import_study(tmp_path / "foreign", results=tmp_path / "own")
    assert "study" in found.refused[str(manifest)]
    assert {path.name for path in tmp_path.iterdir()} == {"foreign", "own"}


def test_packed_records_and_single_files_say_the_same(exported: Path, trained: Path, tmp_path: Path) -> None:
    records = {name: json.loads(text) for name, text in read_packed(exported / PACKED).items()}
    first = min(name for name in records if name.endswith("record.json"))
    altered = {**records, first: {**records[first], "steps": 1}}
    write_packed(exported / PACKED, altered)
    assert [finding.path for finding in check_results(exported) if finding.path.name == "record.json"] == [
        exported / first
    ]
    with pytest.warns(UserWarning, match="is damaged"):
        assert len(collect(exported)) == 3 - 1
    found = import_study(exported, results=tmp_path / "elsewhere")
    assert (set(found.refused), len(found.runs)) == ({str(exported / first)}, 2)
    (exported / first).parent.mkdir(parents=True)
    (exported / first).write_text(json.dumps(records[first]))
    assert check_results(exported) == [], "the file counts where both are there"
    write_packed(exported / PACKED, {name: record for name, record in records.items() if name != first})
    (exported / first).unlink()
    assert any(str(Path(first).parent.name) in finding.reason for finding in check_results(exported)), "one is missing"


@pytest.mark.parametrize("harm", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:-20] + bytes(20)])
@pytest.mark.parametrize("read", [collect, check_results, lambda folder: import_study(folder, results=folder / "r")])
def test_packed_records_that_are_damaged_as_a_whole_are_named(exported: Path, harm: Any, read: Any) -> None:
    (exported / PACKED).write_bytes(harm((exported / PACKED).read_bytes()))
    with pytest.raises(ConfigError, match=r"records\.jsonl\.gz is damaged"):
        read(exported)


@pytest.mark.parametrize("name", ["../record.json", "/runs/a/record.json", "runs/../../record.json"])
def test_packed_records_lie_in_their_folder(exported: Path, name: str) -> None:
    write_packed(exported / PACKED, {name: {}})
    with pytest.raises(ConfigError, match="it names"):
        collect(exported)


def test_a_study_under_way_can_be_exported(trained: Path, tmp_path: Path) -> None:
    """One run is not there, nor the control that waits for it; another is not tested; one record is damaged."""
    results, copy = Path(shutil.copytree(trained, tmp_path / "results")), tmp_path / "copy"
    store = RunStore(results)
    manifest = store.manifest("tiny")
    full, pruned, control = (
        next(e for e in manifest.entries if (e.fraction == 1, e.control is not None) == place)
        for place in ((True, False), (False, False), (False, True))
    )
    store.write_manifest(
        manifest.model_copy(update={"entries": [e for e in manifest.entries if e.key != control.key]}), results / "tiny"
    )
    store.evaluation_file(full.key, full.evaluation).unlink()
    (store.folder(pruned.key) / "record.json").write_text("{")
    with pytest.warns(UserWarning, match="is damaged.*left out"):
        done = export_study("tiny", copy, results=results)
    assert done.runs == 1
    assert any(text == f"random {100 * pruned.fraction:g} % seed 0: not trained" for text in done.missing)
    assert any(text.startswith("random 100 %") and text.endswith("not tested") for text in done.missing)
    assert any(text.startswith("same_cost(random)") and "not finished" in text for text in done.missing)
    write_page(copy, "tiny")
    assert set(collect(copy, study="tiny")["key"]) == {full.key}


@pytest.mark.slow
def test_a_committed_study_draws_its_figure_on_a_machine_without_weights(tmp_path: Path) -> None:
    """The committed digits: imported, then their notebook; nothing is trained, table and figure are the same."""
    committed = Path(__file__).resolve().parents[2] / "results" / "reference" / "digits"
    assert import_study(committed, results=tmp_path).refused == {}
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
    manifest = RunStore(tmp_path).manifest("digits")
    config = study_config({**manifest.config, "results": str(tmp_path)})
    notebook = committed.parents[2] / "notebooks" / "accuracy_vs_fraction.ipynb"
    execute([notebook], {**manifest.config, "results": str(tmp_path)}, config)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")} == before
    assert (tmp_path / "digits" / "table.tex").read_text() == (committed / "table.tex").read_text()
    figures = (str(folder / "accuracy_vs_fraction.png") for folder in (committed, tmp_path / "digits"))
    assert compare_images(*figures, tol=10) is None


@pytest.mark.parametrize("folder", [".", "missing"])
def test_import_needs_records(tmp_path: Path, folder: str) -> None:
    with pytest.raises(ConfigError, match="exported study or a results folder"):
        import_study(tmp_path / folder, results=tmp_path / "r")
