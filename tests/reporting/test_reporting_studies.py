"""Analyses of studies on runs made by hand: pairs, tasks as the unit, correlations, and text that stays in its cell."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_run import failed_row, result_row

from tinytrain_dist.foundation.errors import StorageError
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_alone import QUARTERS
from tinytrain_dist.reporting.runs import open_run
from tinytrain_dist.reporting.studies import ANALYSES
from tinytrain_dist.reporting.studies.criteria import criteria
from tinytrain_dist.reporting.studies.fisher_rank import fisher_rank, rank_correlation
from tinytrain_dist.reporting.studies.initialization import initialization
from tinytrain_dist.reporting.studies.main_table import main_table
from tinytrain_dist.reporting.studies.report import StudyReport, StudyTable
from tinytrain_dist.reporting.studies.samples import difference, measured

MakeRun = Callable[..., Path]


def rows_of(accuracies: dict[str, Sequence[float]], *, device: str = "jetson_nano", **values: Any) -> list[Any]:
    """Return one row per method and task; even tasks are signs, odd ones flags."""
    return [
        result_row(
            task_id=f"task {index}", domain=("signs", "flags")[index % 2], method=method, device=device,
            accuracy_after=accuracy, **values,
        )
        for method, found in accuracies.items() for index, accuracy in enumerate(found)
    ]  # fmt: skip


def table(report: StudyReport, words: str) -> dict[str, dict[str, Any]]:
    (found,) = [t.to_dict() for t in report.tables if words in t.title]
    return {row[0]: dict(zip(found["columns"], row, strict=True)) for row in found["rows"]}


def test_gains_are_paired_and_a_failed_task_leaves_its_pair_out(make_run: MakeRun) -> None:
    rows = rows_of({"none": (0.5, 0.6, 0.7, 0.8), "last_layer": (0.6, 0.65, 0.9)})
    rows.append(failed_row(task_id="task 3", domain="flags", method="last_layer", device="jetson_nano"))
    report = main_table({"net": open_run(make_run(rows))})
    row = table(report, "gain over none")["last_layer"]
    assert (row["tasks"], row["all"]["num"], row["flags"]["num"]) == (3, 3, 1)
    assert row["all"]["mean"] == pytest.approx((10 + 5 + 20) / 3)
    assert row["flags"]["mean"] == pytest.approx(5) and row["flags"]["low"] is None, "one task has no interval"
    assert "net: rows that failed and are in no mean: last_layer: 1" in report.notes
    text = report.to_markdown(title="x")
    assert "+5.0 ±?" in text and "| last_layer | 3 |" in text


def test_a_method_whose_outcome_depends_on_the_device_has_a_line_per_device(make_run: MakeRun) -> None:
    rows = rows_of({"none": (0.5, 0.5), "tinytrain": (0.6, 0.7)}, device="a")
    rows += rows_of({"none": (0.5, 0.5), "tinytrain": (0.6, 0.9)}, device="b")
    report = main_table({"net": open_run(make_run(rows))})
    accuracies = table(report, "accuracy, per cent")
    assert list(accuracies) == ["none", "tinytrain, a", "tinytrain, b"]
    assert accuracies["none"]["all"]["num"] == 2, "two devices are not two tasks"
    assert table(report, "tinytrain, b minus")["none"]["all"]["mean"] == pytest.approx(25)


def test_criteria_say_when_budgets_differ(make_run: MakeRun) -> None:
    spent = {"updated_weights": 7, "paper_memory_bytes": 90, "input_grad_macs": 3, "weight_grad_macs": 4}
    runs = {
        name: open_run(
            make_run(
                rows_of({"none": (0.5, 0.5), "tinytrain": after}, budget_memory_bytes=memory,
                        budget_backward_macs=10, **spent),
                name=name,
            )
        )
        for name, after, memory in (("full", (0.6, 0.8), 100), ("random", (0.6, 0.7), 200))
    }  # fmt: skip
    report = criteria(runs)
    row = table(report, "by criterion")["random"]
    assert row["minus full, points"]["mean"] == pytest.approx(-5) and row["backward MACs"] == 7
    assert any(note.startswith("budgets DIFFER: 100 bytes") for note in report.notes)
    same = criteria({"full": runs["full"], "again": runs["full"]})
    assert "budget of every run: 100 bytes and 10 backward MACs" in same.notes


def test_initializations_are_paired_on_common_tasks_only(make_run: MakeRun) -> None:
    one = open_run(make_run(rows_of({"none": (0.2, 0.4, 0.9)}, initialization="random"), name="one"))
    other = open_run(make_run(rows_of({"none": (0.5, 0.5)}, initialization="pretrained"), name="other"))
    report = initialization({"random": one, "pretrained": other})
    step = table(report, "adds")["none"]["pretrained minus random"]
    assert (step["num"], step["mean"]) == (2, pytest.approx((30 + 10) / 2))


SCALES = {10: 1.0, 11: 0.1, 12: 10.0}
DELTA = {
    layer: [scale * (n - channel) for channel in range(n)]
    for layer, scale in SCALES.items()
    for n in (layer_graph("mcunet").layer(layer).out_channels,)
}
"""Every layer's channels fall in importance from the first to the last."""


def fisher_run(make_run: MakeRun, gains: dict[str, float]) -> Path:
    """Return a run of one task that gained ``gains`` per method, and the stored ``DELTA``."""
    rows = [
        result_row(task_id="t", method=method, accuracy_before=0.5, accuracy_after=0.5 + gain)
        for method, gain in gains.items()
    ]
    path = make_run(rows)
    stored = [
        {"task_id": "t", "checkpoint": "c0ffee", "layer": layer, "potential": sum(delta), "delta": delta}
        for layer, delta in DELTA.items()
    ]
    (path / "fisher").mkdir()
    for name in ("a", "b"):  # a second attempt left the same rows
        pq.write_table(pa.Table.from_pylist(stored), path / "fisher" / f"{name}.parquet")
    return path


def test_a_perfect_order_has_correlation_one(make_run: MakeRun) -> None:
    potentials = {layer: sum(delta) for layer, delta in DELTA.items()}
    order = sorted(potentials, key=potentials.__getitem__)
    gains = {f"layer_alone_{layer}": 0.01 * (1 + place) for place, layer in enumerate(order)}
    gains |= {f"layer_alone_10_{quarter}": 0.04 - 0.01 * i for i, quarter in enumerate(QUARTERS)}
    report = fisher_rank({"net": open_run(fisher_run(make_run, gains))})
    layers, groups = table(report, "score of a layer"), table(report, "channel group")
    assert layers["Fisher potential"]["all"]["mean"] == pytest.approx(1.0)
    by_place = rank_correlation(sorted(potentials), [gains[f"layer_alone_{layer}"] for layer in sorted(potentials)])
    assert layers["position, later first"]["all"]["mean"] == pytest.approx(by_place)
    assert [row["all"]["mean"] for row in groups.values()] == pytest.approx([1.0, 1.0])
    quarters = table(report, "gain of a quarter")
    assert quarters["top minus bottom, paired"]["all"]["mean"] == pytest.approx(3.0)
    found = table(report, "layer by layer")
    for layer, potential in potentials.items():
        share = found[str(layer)]["share of the potential, per cent"]["mean"]
        assert share == pytest.approx(100 * potential / sum(potentials.values()))


def test_fisher_information_that_is_no_number_ranks_nothing(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DELTA, 12, [float("nan"), *DELTA[12][1:]])
    gains = {"layer_alone_10": 0.01, "layer_alone_11": 0.02, "layer_alone_12": 0.03}
    report = fisher_rank({"net": open_run(fisher_run(make_run, gains))})
    assert [row["tasks"] for row in table(report, "score of a layer").values()] == [0] * 4
    assert "nan" not in report.to_markdown(title="x")


def test_equal_gains_have_no_order(make_run: MakeRun) -> None:
    gains = dict.fromkeys(("layer_alone_10", "layer_alone_11", "layer_alone_12"), 0.01)
    report = fisher_rank({"net": open_run(fisher_run(make_run, gains))})
    row = table(report, "score of a layer")["Fisher potential"]
    assert row["tasks"] == 0 and row["all"]["mean"] is None


def test_a_run_without_what_is_asked_is_named(make_run: MakeRun) -> None:
    run = open_run(make_run(rows_of({"none": (0.5,)})))
    with pytest.raises(StorageError, match="holds no row of tinytrain"):
        criteria({"full": run})
    with pytest.raises(StorageError, match="need rows of layer_alone_<layer>"):
        fisher_rank({"layers": run})
    alone = open_run(make_run(rows_of({"layer_alone_3": (0.5,)}), name="alone"))
    with pytest.raises(StorageError, match="no Fisher information is stored"):
        fisher_rank({"layers": alone})


@given(st.lists(st.integers(-5, 5), min_size=3, max_size=12), st.randoms(use_true_random=False))
def test_rank_correlation_knows_ranks_alone(values: list[int], random: Any) -> None:
    other = [random.randint(-5, 5) for _ in values]
    found = rank_correlation(values, other)
    assert found == rank_correlation([v**3 + 7 for v in values], other) or found == pytest.approx(
        rank_correlation([v**3 + 7 for v in values], other)
    )
    if found is None:
        assert len(set(values)) == 1 or len(set(other)) == 1
    else:
        assert -1 - 1e-9 <= found <= 1 + 1e-9
        assert rank_correlation(values, [-v for v in other]) == pytest.approx(-found)
        assert rank_correlation(values, values) == pytest.approx(1)


def test_two_items_have_no_rank_correlation() -> None:
    assert rank_correlation([1, 2], [3, 4]) is None


@given(
    st.dictionaries(st.text(max_size=3), st.floats(-50, 50)), st.dictionaries(st.text(max_size=3), st.floats(-50, 50))
)
def test_a_difference_is_over_pairs_and_changes_its_sign(one: dict[str, float], other: dict[str, float]) -> None:
    found = difference(one, other)
    assert set(found) == set(one) & set(other)
    assert difference(other, one) == {task: -value for task, value in found.items()}
    assert measured(found.values(), "points").to_dict()["num"] in (len(found) or None, None)


def test_names_from_outside_stay_in_their_cell_and_json_is_plain() -> None:
    shown = StudyTable(title="a\nb", columns=("x|y", "n"), rows=(("<script>|\n", 1234), (None, 2.0)))
    text = StudyReport(tables=(shown,), notes=("<b>",)).to_markdown(title="t")
    assert "<script" not in text and "&lt;script>\\|" in text and "1,234" in text
    assert [line.count(" | ") for line in text.splitlines() if line.startswith("|")] == [1, 1, 1, 1]
    assert json.loads(json.dumps(StudyReport(tables=(shown,)).to_dict()))["tables"][0]["rows"][1] == [None, 2.0]


def test_every_analysis_has_its_own_name() -> None:
    assert {name: analysis.__name__ for name, analysis in ANALYSES.items()} == {name: name for name in ANALYSES}
