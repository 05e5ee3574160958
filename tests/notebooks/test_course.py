"""The course: solved, every lesson passes its checks; unsolved or wrong, every check says why it fails."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode

from advprune_core.analysis.verdicts import BETTER, BETTER_ALONE, BETTER_HERE, UNDECIDED, WORSE, WORSE_ALONE
from tests.committed import CIFAR_10, CIFAR_100, answer_rows, wrong_on_cifar
from tests.reference import REFERENCE

ROOT = Path(__file__).parents[2]
COURSE = ROOT / "notebooks" / "course"
EDITIONS: dict[str, Any] = runpy.run_path(str(COURSE / "editions.py"))
LESSONS: list[Path] = EDITIONS["LESSONS"]
student, marked, execute = EDITIONS["student"], EDITIONS["marked"], EDITIONS["execute"]
MARKER = re.compile(r"^ *### (BEGIN|END) (SOLUTION|HIDDEN TESTS)", re.MULTILINE)

#: Answers that somebody could hand in, by the exercise: each has to fail.
WRONG = {
    "pgd-loop": [
        # The ball is forgotten.
        """
def pgd_by_hand(model, images, labels, eps, steps, step_size):
    point = images
    for _ in range(steps):
        point = fgsm_by_hand(model, point.detach(), labels, step_size)
    return point
""",
        # The gradient is taken once, at the clean image.
        """
def pgd_by_hand(model, images, labels, eps, steps, step_size):
    return fgsm_by_hand(model, images, labels, min(eps, steps * step_size))
""",
        # Down the loss.
        """
def pgd_by_hand(model, images, labels, eps, steps, step_size):
    point = images
    for _ in range(steps):
        moved = fgsm_by_hand(model, point.detach(), labels, -step_size)
        point = (images + (moved - images).clamp(-eps, eps)).clamp(0, 1)
    return point
""",
    ],
    "steps-to-break": [
        # The last step at which an image is wrong.
        """
def steps_to_break(model, images, labels, eps, step_size, most):
    found = torch.full((len(images),), most + 1)
    found[model(images).argmax(1) != labels] = 0
    for k in range(1, most + 1):
        point = pgd(model, images, labels, eps=eps, steps=k, step_size=step_size, start="clean")
        found[(model(point).argmax(1) != labels) & (found > 0)] = k
    return found
""",
        # Images that are wrong without an attack are not looked at.
        """
def steps_to_break(model, images, labels, eps, step_size, most):
    found = torch.full((len(images),), most + 1)
    for k in range(most, 0, -1):
        point = pgd(model, images, labels, eps=eps, steps=k, step_size=step_size, start="clean")
        found[model(point).argmax(1) != labels] = k
    return found
""",
    ],
    "inner-loop": [
        "def inner(model, images, labels):\n    return images",
        'def inner(model, images, labels):\n    return pgd(model, images, labels, eps=eps, steps=7, start="clean")',
        # Noise instead of an attack.
        "def inner(model, images, labels):\n    return (images + eps * (2 * torch.rand_like(images) - 1)).clamp(0, 1)",
        # Leaves gradients in the model.
        """
def inner(model, images, labels):
    point = (images + eps * (2 * torch.rand_like(images) - 1)).clamp(0, 1).requires_grad_()
    F.cross_entropy(model(point), labels).backward()
    moved = point.detach() + eps * point.grad.sign()
    return (images + (moved - images).clamp(-eps, eps)).clamp(0, 1)
""",
    ],
    "trades-loss": [
        """
def trades_by_hand(clean, adversarial, labels, beta):
    p, q = F.log_softmax(clean, 1), F.log_softmax(adversarial, 1)
    return F.cross_entropy(clean, labels, reduction="none") + beta * (q.exp() * (q - p)).sum(1)
""",
        """
def trades_by_hand(clean, adversarial, labels, beta):
    p, q = F.log_softmax(clean, 1), F.log_softmax(adversarial, 1)
    return F.cross_entropy(clean, labels) + beta * (p.exp() * (p - q)).sum(1).mean()
""",
        """
def trades_by_hand(clean, adversarial, labels, beta):
    p, q = F.log_softmax(clean, 1), F.log_softmax(adversarial, 1)
    return F.cross_entropy(clean, labels, reduction="none") + (p.exp() * (p - q)).sum(1)
""",
    ],
    "break-it": [
        """
def break_it(model, images, labels, eps):
    return pgd(model, images, labels, eps=eps, steps=100)
""",
        """
def break_it(model, images, labels, eps):
    return pgd(model, images, labels, eps=2 * eps, steps=40, loss="margin")
""",
    ],
    "worst-case": [
        "def worst_case(right):\n    return min(values.mean() for values in right.values())",
        "def worst_case(right):\n    return float(np.mean([values.mean() for values in right.values()]))",
    ],
    "sentinel": [
        # From check to check only.
        """
def sentinel(held, drop):
    return next((i for i in range(1, len(held)) if held[i - 1] - held[i] > drop), None)
""",
        # Single dips count.
        """
def sentinel(held, drop):
    return next((i for i, value in enumerate(held) if max(held[: i + 1]) - value > drop), None)
""",
        # The best of all, not of those so far.
        """
def sentinel(held, drop):
    low = [max(held) - value > drop for value in held]
    return next((i for i in range(len(held)) if low[i] and all(low[i : i + 2])), None)
""",
    ],
    "alignment": [
        # One cosine of everything.
        """
def alignment(model, images, points, labels):
    here, there = gradient_at(model, images, labels), gradient_at(model, points, labels)
    return F.cosine_similarity(here.flatten(), there.flatten(), dim=0).item()
""",
        # Not divided by the lengths.
        """
def alignment(model, images, points, labels):
    return (gradient_at(model, images, labels) * gradient_at(model, points, labels)).sum(1).mean().item()
""",
    ],
    "plan": [
        """
def pairs_needed(differences, effect):
    return max(2, int(np.ceil((1.96 + 0.84) ** 2 * np.var(differences) / effect**2)))
""",
        """
def pairs_needed(differences, effect):
    return int(np.ceil((1.96 + 0.84) ** 2 * np.var(differences, ddof=1) / effect**2))
""",
    ],
    "paired-test": [
        "def paired_p(first, second):\n    return stats.ttest_ind(first, second).pvalue",
        "def paired_p(first, second):\n    return stats.ttest_rel(first, second).pvalue / 2",
        # The normal distribution, as for many seeds.
        """
def paired_p(first, second):
    d = first - second
    return 2 * stats.norm.sf(abs(d.mean()) / (d.std(ddof=1) / len(d) ** 0.5))
""",
    ],
    "holm": [
        "def holm_by_hand(p):\n    return np.minimum(np.array(p) * len(p), 1)",
        # Sorted, not as they came.
        """
def holm_by_hand(p):
    return np.minimum(np.maximum.accumulate(np.sort(p) * np.arange(len(p), 0, -1)), 1)
""",
        # A larger p value may come out below a smaller one.
        """
def holm_by_hand(p):
    p = np.asarray(p)
    corrected = np.empty(len(p))
    corrected[np.argsort(p)] = np.minimum(np.sort(p) * np.arange(len(p), 0, -1), 1)
    return corrected
""",
    ],
    "greedy-step": [
        "def greedy_step(atoms, residual, picked):\n    return int((atoms @ residual).argmax())",
        """
def greedy_step(atoms, residual, picked):
    products = (atoms @ residual).abs()
    products[picked] = -1
    return int(products.argmax())
""",
    ],
    "pursuit": [
        # Weights are never solved for again.
        """
def pursue(atoms, target, k):
    chosen, weights, residual = [], [], target
    for _ in range(k):
        chosen.append(greedy_step(atoms, residual, chosen))
        weights.append(max(0.0, float(atoms[chosen[-1]] @ residual / atoms[chosen[-1]].square().sum())))
        residual = residual - weights[-1] * atoms[chosen[-1]]
    return chosen, np.array(weights)
""",
        # No residual: the k largest products.
        """
def pursue(atoms, target, k):
    chosen = (atoms @ target).topk(k).indices.tolist()
    return chosen, nnls(atoms[chosen].T.double().numpy(), target.double().numpy())[0]
""",
    ],
    "correlations": [
        # The features are forgotten.
        "def correlations(errors, features, residual):\n    return (errors @ residual).sum(1)",
        # The gradients are written down.
        """
def correlations(errors, features, residual):
    return (errors[:, :, None] * features[:, None, :]).flatten(1) @ residual.flatten()
""",
        # They are taken from above, where they were written down.
        "def correlations(errors, features, residual):\n    return gradients @ residual.flatten()",
    ],
    "suspects": [
        "def suspects(margins, count):\n    return np.argsort(-margins)[:count]",
        "def suspects(margins, count):\n    return np.argsort(np.abs(margins))[:count]",
    ],
    "own-pruner": [
        # Of all images, not of each class.
        """
class HighestAUM(ScheduledPruner):
    name = "highest_aum_of_the_course"

    def select(self, context):
        return Selection(np.argsort(-margins)[: context.k])
""",
        # The hard ones.
        """
class HighestAUM(ScheduledPruner):
    name = "highest_aum_of_the_course"

    def select(self, context):
        return Selection(np.concatenate([ids[np.argsort(margins[ids])[:k]] for ids, k in context.per_class()]))
""",
    ],
    "exchange": [
        "def affordable(budget, n, fraction, k):\n    return budget / (n * fraction * 2 * k)",
        "def affordable(budget, n, fraction, k):\n    return budget / (n * (2 * k + 3))",
        "def affordable(budget, n, fraction, k):\n    return int(budget / (n * fraction * (2 * k + 3)))",
    ],
    "best-settings": [
        'def my_settings():\n    return {"trainer": "n_fgsm", "epochs": 30}',
        'def my_settings():\n    return {"trainer": "pgd_at", "epochs": epochs_for(1, 17)}',
    ],
}


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def exercises(lesson: NotebookNode) -> list[tuple[NotebookNode, NotebookNode]]:
    """Each cell to be solved, and the cell after it, which checks it."""
    cells = lesson.cells
    return [(cell, cells[i + 1]) for i, cell in enumerate(cells) if marked(cell, "solution")]


def name_of(solution: NotebookNode) -> str:
    return str(solution.metadata["nbgrader"]["grade_id"])


def test_there_are_eight_lessons() -> None:
    assert [int(path.name[0]) for path in LESSONS] == list(range(1, 9))


def test_every_exercise_has_wrong_answers() -> None:
    names = [name_of(solution) for path in LESSONS for solution, _ in exercises(read(path))]
    assert len(names) == len(set(names))
    assert set(names) == set(WRONG)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_stored_as_nbgrader_wants_it_and_without_outputs(path: Path) -> None:
    lesson = read(path)
    nbformat.validate(lesson)
    ids = set()
    for cell in lesson.cells:
        markers = MARKER.findall(cell.source)
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)
        if "nbgrader" not in cell.metadata:
            assert not markers
            continue
        data = dict(cell.metadata["nbgrader"])
        ids.add(data.pop("grade_id"))
        assert (data.pop("schema_version"), data.pop("task")) == (3, False)
        if data["solution"]:
            assert data == {"solution": True, "grade": False, "locked": False}
            assert markers == [("BEGIN", "SOLUTION"), ("END", "SOLUTION")]
        else:
            assert data.pop("points") > 0
            assert data == {"solution": False, "grade": True, "locked": True}
            assert markers in ([], [("BEGIN", "HIDDEN TESTS"), ("END", "HIDDEN TESTS")])
    pairs = exercises(lesson)
    assert pairs
    assert ids == {name for solution, _ in pairs for name in (name_of(solution), f"{name_of(solution)}-check")}
    assert all(name_of(check) == f"{name_of(solution)}-check" for solution, check in pairs)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_the_students_edition_has_no_solution_and_no_hidden_test(path: Path) -> None:
    lesson = read(path)
    edition = student(lesson)
    assert lesson == read(path), "the source stays as it is"
    assert not any(MARKER.search(cell.source) for cell in edition.cells)
    for (solved, check), (unsolved, left) in zip(exercises(lesson), exercises(edition), strict=True):
        (begin, end) = (found.start() for found in MARKER.finditer(solved.source))
        for line in solved.source[begin:end].splitlines()[1:]:
            assert line not in unsolved.source.splitlines()
        compile(unsolved.source, path.name, "exec")
        hidden = [found.start() for found in MARKER.finditer(check.source)]
        kept = check.source if not hidden else check.source[: hidden[0]] + check.source[hidden[1] :].partition("\n")[2]
        assert left.source == kept.rstrip("\n")
    for cell, same in zip(lesson.cells, edition.cells, strict=True):
        assert marked(cell, "solution") or marked(cell, "grade") or cell == same


def error_of(cell: NotebookNode) -> tuple[str, str]:
    """Name and message of a cell's error; empty without one."""
    for output in cell.outputs:
        if output.output_type == "error":
            return output.ename, output.evalue
    return "", ""


@pytest.mark.slow(seconds=60)
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_checks_pass_what_is_right_and_say_what_is_wrong(path: Path) -> None:
    """One kernel: the lesson, and before each solution its hint and the wrong answers, each with the check."""
    lesson = read(path)
    hints, checks = {}, {}
    for (_, check), (unsolved, left) in zip(exercises(lesson), exercises(student(lesson)), strict=True):
        hints[check.id], checks[check.id] = unsolved, left
    cells: list[NotebookNode] = []
    fails: dict[str, tuple[str, str]] = {}

    def attempt(answer: str, check: NotebookNode, kind: str) -> None:
        cell = nbformat.v4.new_code_cell(check.source)
        cells.extend([nbformat.v4.new_code_cell(answer), cell])
        fails[cell.id] = (kind, answer)

    for cell in lesson.cells:
        if marked(cell, "solution"):
            continue
        if marked(cell, "grade"):
            solution = lesson.cells[lesson.cells.index(cell) - 1]
            attempt(hints[cell.id].source, checks[cell.id], "NotImplementedError")
            for answer in WRONG[name_of(solution)]:
                attempt(answer, cell, "AssertionError")
            cells.append(solution)
        cells.append(cell)
    everything = nbformat.v4.new_notebook(cells=cells, metadata=lesson.metadata)
    execute(everything, allow_errors=True)

    figures, said = 0, ""
    for cell in everything.cells:
        if cell.cell_type != "code":
            continue
        kind, message = error_of(cell)
        wanted, answer = fails.get(cell.id, ("", ""))
        assert kind == wanted, f"{kind or 'no error'}: {message}\n{answer or cell.source}"
        if wanted:
            assert len(message.split()) >= 5, f"no sentence: {message!r}"
        figures += any("image/png" in output.get("data", {}) for output in cell.outputs)
        said += "".join(output.get("text", "") or output.data.get("text/markdown", "") for output in shown(cell))
        if marked(cell, "grade") and not wanted:
            assert "Right" in "".join(output.get("text", "") for output in cell.outputs)
    assert figures >= 1
    # What is compared costs the same, and a fall is what the sentence says that it is.
    costs = set(re.findall(r"(\d+)(?: passes)? a training image", said))
    assert len(costs) == (path.stem in ("5_enough_data", "7_wrong_labels")), costs
    falls = re.findall(r"(is|is not) seen in the longer.* is (\d+)% at its best .* (\d+)% at the lowest", flat(said))
    assert len(falls) == (path.stem == "4_collapse")
    assert all((seen == "is") == (int(best) - int(lowest) > 20) for seen, best, lowest in falls)


def shown(cell: NotebookNode) -> list[NotebookNode]:
    """What a cell has printed or displayed."""
    return [output for output in cell.outputs if output.output_type in ("stream", "display_data")]


def flat(text: str) -> str:
    """A text without its line breaks."""
    return " ".join(text.split())


def test_what_is_tried_is_not_scored_on_the_test_images() -> None:
    (lesson,) = (read(path) for path in LESSONS if path.stem == "8_budget")
    (check,) = (cell for cell in lesson.cells if "digits.test" in cell.source)
    assert name_of(check) == "best-settings-check"
    assert "images=digits.val_stop" in "".join(cell.source for cell in lesson.cells)


def test_what_lessons_say_of_the_records_is_so() -> None:
    rows = answer_rows()
    says = {name: row.verdict.says for name, row in rows.items()}
    wrong = wrong_on_cifar()
    cifar, cifar_100 = ({says[f"{name}, least"] for name in names} for names in (CIFAR_10, CIFAR_100))
    sentences: dict[str, dict[str, bool]] = {
        "5_enough_data": {
            "On the digits, under seven steps, the fifth is less robust beyond chance.": says["digits, least"] == WORSE,
            "On CIFAR-10, in each of the settings": cifar == {UNDECIDED},
            "and on CIFAR-100, in two, no difference is seen": cifar_100 == {UNDECIDED} and len(CIFAR_100) == 2,
        },
        "7_wrong_labels": {
            "half of the images by AUM are less robust": says["few wrong, half"] == WORSE,
            "and 80 % are more robust, both beyond chance": says["few wrong"] == BETTER,
            "60 % were measured where 40 % are wrong, and are more robust as well": says["many wrong"] == BETTER,
            "and known of these test images alone": {says["few wrong, L2"], says["many wrong, L2"]} == {BETTER_HERE},
            "gain clean accuracy alone": {row.verdict.says for row in wrong} == {UNDECIDED}
            and min(row.case.clean.low for row in wrong) > 0,
            "half of the digits by AUM lose robustness beyond chance": half_of_the_right("when_pruning_wins")
            == {"worse beyond chance"},
            "and no difference of robustness on CIFAR-10": half_of_the_right("noise_cifar10_cpu")
            == {"not significant"},
        },
        "8_budget": {
            "on the digits seven steps on a part are less robust beyond chance": says["cheaper, digits"] == WORSE,
            "on CIFAR-10 beside N-FGSM by themselves": says["cheaper"] == WORSE_ALONE,
            "beside Fast AT no difference is seen, but in clean accuracy a large one": says["cheaper, fast"]
            == UNDECIDED
            and rows["cheaper, fast"].case.clean.high < -0.05,
            "on Fashion-MNIST ten seeds see a small gain, not beyond chance": says["carried"] == BETTER_ALONE,
            "a quarter of the data loses points at the cost of six epochs": says["carried, cifar"] == WORSE,
            "shows no difference at that of two": says["carried, cifar, least"] == UNDECIDED,
        },
    }
    for path in LESSONS:
        text = flat(" ".join(cell.source for cell in read(path).cells))
        for sentence, holds in sentences.pop(path.stem, {}).items():
            assert sentence in text, f"{path.stem} says otherwise now"
            assert holds, f"{path.stem}: {sentence}"
    assert not sentences


def half_of_the_right(study: str) -> set[str]:
    """What the page of a study says of half the images by AUM, none mislabelled, beside all of them at equal cost."""
    text = (REFERENCE / study / "README.md").read_text()
    found = re.search(r"^- \*\*plain first, none wrong: aum .*, 50 %\*\*:.*\n((?:  - .*\n)+)", text, re.MULTILINE)
    assert found is not None
    beside = [line for line in found[1].splitlines() if "none wrong: all the data*:" in line]
    assert len(beside) == 2, "with the plain phase and without"
    return {line.rpartition("; ")[2].partition(" (")[0] for line in beside}


def test_both_editions_are_written_and_an_error_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = {"schema_version": 3, "locked": False, "grade": False, "solution": False, "task": False}
    for name, answer in {"1_good": 2, "2_bad": 3}.items():
        solution = f"def two():\n    ### BEGIN SOLUTION: one more than 1\n    return {answer}\n    ### END SOLUTION"
        check = "assert two() == 2, 'It is not two.'\n### BEGIN HIDDEN TESTS\nassert two() < 3\n### END HIDDEN TESTS"
        cells = [
            nbformat.v4.new_code_cell(solution, metadata={"nbgrader": base | {"grade_id": "two", "solution": True}}),
            nbformat.v4.new_code_cell(check, metadata={"nbgrader": base | {"grade_id": "two-check", "grade": True}}),
        ]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    out, lessons = tmp_path / "out", sorted(tmp_path.glob("*.ipynb"))
    EDITIONS["write_student"](lessons, out)
    assert EDITIONS["write_instructor"](lessons, out) == 1
    said = capsys.readouterr().out
    assert re.search(r"1_good +1 exercises, \d+ s, solved\n", said)
    assert re.search(r"2_bad +1 exercises, \d+ s, FAILED: AssertionError: It is not two\.\n", said)
    assert str(out / "student") in said
    unsolved, solved = read(out / "student" / "1_good.ipynb"), read(out / "instructor" / "1_good.ipynb")
    assert unsolved.cells[0].source == (
        "def two():\n    # Write it here.\n    raise NotImplementedError('one more than 1')"
    )
    assert unsolved.cells[1].source == "assert two() == 2, 'It is not two.'"
    assert [cell.execution_count for cell in solved.cells] == [1, 2]


def test_students_get_theirs_without_an_execution_and_keep_their_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: Any, **__: Any) -> None:
        pytest.fail("executed")

    monkeypatch.setitem(EDITIONS["main"].__globals__, "execute", never)
    assert EDITIONS["main"]([str(tmp_path), "--student"]) == 0
    assert [path.name for path in sorted((tmp_path / "student").iterdir())] == [path.name for path in LESSONS]
    assert [path.name for path in tmp_path.iterdir()] == ["student"]
    for path in LESSONS:
        assert read(tmp_path / "student" / path.name) == student(read(path))
    answered = tmp_path / "student" / LESSONS[0].name
    answered.write_text("my answer")
    capsys.readouterr()
    assert EDITIONS["main"]([str(tmp_path), "--student"]) == 0
    assert answered.read_text() == "my answer"
    assert f"({len(LESSONS)} were there already and stay" in capsys.readouterr().out


def test_students_get_theirs_before_anything_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def count(*_: Any, **__: Any) -> None:
        seen.append(len(list((tmp_path / "student").iterdir())))

    monkeypatch.setitem(EDITIONS["main"].__globals__, "execute", count)
    assert EDITIONS["main"]([str(tmp_path)]) == 0
    assert seen == [len(LESSONS)] * len(LESSONS)


def test_help_is_no_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        EDITIONS["main"](["--help"])
    assert left.value.code == 0
    assert "--student" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
