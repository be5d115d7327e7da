import csv
import io
import json
import math
import re
import shutil
import subprocess
from dataclasses import FrozenInstanceError

import pytest

from sslkit.data import about
from sslkit.evaluation.entries import transfer_entries
from sslkit.evaluation.published import PUBLISHED, SIMCLR12
from sslkit.evaluation.transfer import transfer_table

CUT = "200 of 20,000 steps, 2 x 2 of 7 x 8"


def score(name, value, metric="accuracy", **further):
    return {"protocol": f"{name}/1:0a1b2c3d", "metric": metric, metric: value, **further}


def result(target="runs/x", data="cifar10", *, failed=None, **further):
    """A result; scores are given by protocol, a number or a dictionary."""
    keys = {"absent", "differs", "n_train", "n_test", "backbone", "step", "layer", "title"}
    metric = about(data).metric
    scores = {
        name: value if isinstance(value, dict) else score(name, value, metric)
        for name, value in further.items()
        if name not in keys
    }
    plain = {"backbone": "ResNet(name=resnet18)", "step": 100, "n_train": 40, "n_test": 20}
    plain |= {"data": data, "title": about(data).title, "metric": metric, "differs": None}
    plain |= {"target": target, "absent": None, "failed": failed or {}, "protocols": scores}
    return plain | {k: v for k, v in further.items() if k in keys}


def gone(target, data, **further):
    why = f"{data} is not at data/{data}: get it from its page"
    return result(target, data, absent=why, n_train=None, n_test=None, **further)


def cells(table, row, block=None):
    """The cells of the Markdown row of this label, in the first grid or under a block's title."""
    text = table.markdown()
    text = text.partition(f"**{block}**")[2] if block else text
    line = next(line for line in text.splitlines() if line.startswith(f"| {row} "))
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_a_small_table_by_hand():
    results = [
        result("runs/x", "cifar10", knn=61.24, linear=70.0),
        result("runs/x", "caltech101", knn=40.0, linear=50.0, differs="16 a class"),
        gone("runs/x", "flowers102"),
        result("random", "cifar10", knn=61.16, linear=30.0, step=None),
        result(
            "random",
            "caltech101",
            knn=41.0,
            differs="16 a class",
            failed={"linear": "it\ndid not converge"},
            step=None,
        ),
        gone("random", "flowers102", step=None),
    ]
    assert (
        transfer_table(results).markdown()
        == """\
|                       | CIFAR-10 |  Caltech-101 | Flowers-102 |
| --------------------- | -------: | -----------: | ----------: |
| **Linear evaluation** |          |              |             |
| runs/x                | **70.0** |     50.0 [a] |      absent |
| random                |     30.0 |       failed |      absent |
| *SimCLR (4x)* [b]     |     95.3 |         93.9 |        95.0 |
| *supervised (4x)* [b] |     95.7 |         94.1 |        94.2 |
| *SimCLR (1x)* [c]     |     90.6 |         90.3 |        91.2 |
| **kNN**               |          |              |             |
| runs/x                | **61.2** |     40.0 [a] |      absent |
| random                | **61.2** | **41.0** [a] |      absent |

- [a] Caltech-101: 16 a class, not the published set
- [b] published (Chen et al. 2020, arXiv:2002.05709, Table 8): ResNet-50 (4x), another backbone \
and budget, full sets
- [c] published (Chen et al. 2020, arXiv:2002.05709, appendix B.8): ResNet-50 (1x), another \
backbone and budget, full sets
- In percent: top-1 (CIFAR-10); mean per class (Caltech-101, Flowers-102).
- Bold: the best of our rows, where all are of the same images and protocol.
- Linear evaluation: linear/1:0a1b2c3d.
- kNN: knn/1:0a1b2c3d.
- runs/x: ResNet(name=resnet18), step 100.
- random: ResNet(name=resnet18).
- Absent (Flowers-102): flowers102 is not at data/flowers102: get it from its page
- Failed (Linear evaluation, random, Caltech-101): it did not converge"""
    )


def test_published_rows_are_those_of_the_lecture():
    copy = """
        linear, SimCLR (4x) 76.9 95.3 80.2 48.4 65.9 60.0 61.2 84.2 78.9 89.2 93.9 95.0
        linear, supervised (4x) 75.2 95.7 81.2 56.4 64.9 68.8 63.8 83.8 78.7 92.3 94.1 94.2
        linear, SimCLR (1x) 68.4 90.6 71.6 37.4 58.8 50.3 50.3 80.5 74.5 83.6 90.3 91.2
        finetune, SimCLR (4x) 89.4 98.6 89.0 78.2 68.1 92.1 87.0 86.6 77.8 92.1 94.1 97.6
        finetune, supervised (4x) 88.7 98.3 88.7 77.8 67.0 91.4 88.0 86.5 78.8 93.2 94.2 98.0
        finetune, random init (4x) 88.3 96.0 81.9 77.0 53.7 91.3 84.8 69.4 64.1 82.7 72.5 92.5
    """
    order = "food101 cifar10 cifar100 birdsnap sun397 stanford_cars fgvc_aircraft voc2007 dtd"
    order = [*order.split(), "oxford_pets", "caltech101", "flowers102"]
    assert list(SIMCLR12) == order
    lines = [line.strip() for line in copy.strip().splitlines()]
    assert len(PUBLISHED) == len(lines)
    for row, line in zip(PUBLISHED, lines, strict=True):
        width = row.backbone.removeprefix("ResNet-50 ")
        scores = " ".join(str(row.scores[name]) for name in order)
        assert f"{row.protocol}, {row.target} {width} {scores}" == line
        assert "arXiv:2002.05709" in row.source


def test_the_12_sets_are_those_of_the_data():
    assert {name: about(name).metric for name in SIMCLR12} == SIMCLR12
    table = transfer_table([result(linear=50.0)], columns=SIMCLR12)
    assert cells(table, "runs/x") == ["not run", "50.0", *["not run"] * 10]
    assert cells(table, "*SimCLR (4x)* [a]") == [str(s) for s in PUBLISHED[0].scores.values()]
    head = table.markdown().splitlines()[0]
    assert [cell.strip() for cell in head.split("|")[2:-1]] == [about(n).title for n in SIMCLR12]
    assert "Not run: not asked for, or not reached." in table.notes


def test_a_score_that_is_not_what_its_place_says_has_a_mark():
    old = {"protocol": "linear/0:ffffffff", "accuracy": 60.0}
    results = [
        result("a", "flowers102", linear=50.0, finetune=score("finetune", 1.0, "mean_per_class")),
        result("b", "flowers102", linear=51.0),
        result("c", "flowers102", linear=old),
        result("c", "dtd", finetune=score("finetune", 30.0, cut=CUT), differs="1 of 47 classes"),
    ]
    table = transfer_table(results, published=False)
    assert cells(table, "a") == ["not run", "50.0"]
    assert cells(table, "c") == ["not run", "60.0 [a, b]"]
    assert cells(table, "c", "Fine-tuned") == ["30.0 [c, d]", "not run"]
    assert table.footnotes == {
        "by linear/0:ffffffff, not linear/1:0a1b2c3d": "a",
        "top-1, not mean per class": "b",
        "DTD: 1 of 47 classes, not the published set": "c",
        f"Fine-tuned: {CUT}": "d",
    }


def test_what_is_cut_names_its_id_if_that_is_another():
    cut = {**score("finetune", 30.0, cut=CUT), "protocol": "finetune/1:eeeeeeee"}
    results = [result("a", finetune=60.0), result("b", finetune=61.0), result("c", finetune=cut)]
    table = transfer_table(results, published=False)
    assert list(table.footnotes) == [f"Fine-tuned: {CUT} (finetune/1:eeeeeeee)"]


def test_the_27th_footnote_has_two_letters():
    results = [result(f"r{i}", linear=50.0, differs=f"{i} a class") for i in range(28)]
    marks = list(transfer_table(results, published=False).footnotes.values())
    assert marks[:2] + marks[25:] == ["a", "b", "z", "aa", "ab"]


@pytest.mark.parametrize(
    ("other", "bold"),
    [
        ({}, True),
        ({"differs": "16 a class"}, False),
        ({"n_train": 7}, False),
        ({"n_test": 7}, False),
        ({"knn": score("knn", 10.0, cut=CUT)}, False),
        ({"knn": {**score("knn", 10.0), "protocol": "knn/2:0a1b2c3d"}}, False),
        ({"knn": score("knn", 10.0, "mean_per_class")}, False),
        ({"knn": math.nan}, False),
    ],
)
def test_only_the_comparable_are_compared(other, bold):
    results = [result("a", knn=61.0), result("b", **{"knn": 60.0, **other})]
    table = transfer_table(results)
    assert cells(table, "a")[0].startswith("**") == bold
    assert any(note.startswith("Bold") for note in table.notes) == bold


def test_all_that_a_budget_cut_alike_are_compared():
    results = [result(t, knn=score("knn", v, cut=CUT)) for t, v in (("a", 1.0), ("b", 2.0))]
    assert cells(transfer_table(results), "b") == ["**2.0** [a]"]


def test_retrieval_has_a_table_of_its_own():
    values = {"recall@1": 31.24, "recall@10": 60.0, "map@r": 9.0, "nmi": 40.0, "f1": 12.0}
    scores = {"protocol": "retrieval/1:0a1b2c3d", "metric": "recall@1", **values}
    results = [
        result("runs/x", "cifar10", linear=50.0),
        result("runs/x", "cub200", retrieval=scores, differs="3 of 200 classes", title="CUB"),
        result("runs/x", "dtd", failed={"retrieval": "no two labels are alike"}),
        gone("runs/x", "flowers102"),
    ]
    table = transfer_table(results, published=False)
    assert table.markdown().startswith("""\
| **Linear evaluation** | CIFAR-10 | Flowers-102 |
| --------------------- | -------: | ----------: |
| runs/x                |     50.0 |      absent |

| **Retrieval** | set         |    R@1 |   R@10 |    NMI |     F1 |  MAP@R |
| ------------- | ----------- | -----: | -----: | -----: | -----: | -----: |
| runs/x        | DTD         | failed | failed | failed | failed | failed |
| runs/x        | Flowers-102 | absent | absent | absent | absent | absent |
| runs/x        | CUB [a]     |   31.2 |   60.0 |   40.0 |   12.0 |    9.0 |

- [a] CUB: 3 of 200 classes, not the published set
""")
    assert "left out" not in table.markdown()
    scores["left_out"] = "3 of 9 images, alone in their class, are left out of recall and MAP"
    assert f"\n- CUB: {scores['left_out']}.\n" in transfer_table(results).markdown() + "\n"
    rows = list(csv.DictReader(io.StringIO(table.csv())))
    of_cub = {row["metric"]: float(row["score"]) for row in rows if row["data"] == "cub200"}
    assert of_cub == values


def test_best_in_retrieval_is_by_number():
    values = [{"recall@1": 31.0, "nmi": 40.0}, {"recall@1": 30.0, "nmi": 41.0}]
    named = {"protocol": "retrieval/1:0a1b2c3d"}
    results = [result(f"r{i}", retrieval={**named, **v}) for i, v in enumerate(values)]
    table = transfer_table(results)
    assert cells(table, "r0") == ["CIFAR-10", "**31.0**", "40.0"]
    assert cells(table, "r1") == ["CIFAR-10", "30.0", "**41.0**"]


def test_no_protocol_at_all_is_still_a_table():
    table = transfer_table([gone("runs/x", "dtd"), gone("runs/x", "flowers102")])
    assert table.markdown().startswith("| **No protocol was run** |    DTD | Flowers-102 |")
    assert cells(table, "runs/x") == ["absent", "absent"]
    table = transfer_table([gone("runs/x", "dtd")], protocols=["linear"])
    assert table.markdown().startswith("| **Linear evaluation** |")


def test_protocols_that_were_asked_for_are_asked_of_every_target():
    results = [result("a", linear=50.0), result("b", knn=50.0)]
    entries = transfer_entries(results, published=False)
    assert [(e.target, e.protocol) for e in entries] == [("a", "linear"), ("b", "knn")]
    entries = transfer_entries(results, protocols=["linear"], published=False)
    found = [(e.target, e.protocol, e.text) for e in entries]
    assert found == [("a", "linear", "50.0"), ("b", "linear", "not run"), ("b", "knn", "50.0")]


def test_a_set_that_columns_do_not_name_follows():
    results = [result("a", "folder:birds", linear=50.0), result("a", "dtd", linear=51.0)]
    for columns, order in (((), ["51.0", "50.0"]), (("folder:birds",), ["50.0", "51.0"])):
        assert cells(transfer_table(results, columns=columns), "a") == order
    assert cells(transfer_table(results), "*SimCLR (4x)* [a]") == ["78.9", "-"]


def test_a_set_that_columns_name_is_a_column_whatever_was_run():
    results = [result("a", linear=50.0), result("a", "dtd", retrieval={"recall@1": 3.0})]
    assert cells(transfer_table(results), "a") == ["50.0"]
    assert cells(transfer_table(results, columns=["dtd"]), "a") == ["not run", "50.0"]


def test_other_weights_of_the_same_name_are_another_row():
    results = [
        result("random", linear=10.0, backbone="A"),
        result("random", linear=11.0, backbone="B"),
        result("random", "dtd", linear=12.0, backbone="A"),
        result("random", "dtd", linear=13.0, backbone="B"),
        result("random", linear=14.0, backbone="B"),  # another seed
        result("random", linear=15.0, backbone="A", layer="layer4"),
    ]
    table = transfer_table(results, published=False)
    assert cells(table, "random") == ["10.0", "12.0"]
    assert cells(table, "random (2)") == ["11.0", "**13.0**"]
    assert cells(table, "random (3)") == ["14.0", "not run"]
    assert cells(table, "random, layer4") == ["**15.0**", "not run"]
    assert "random (2): B, step 100." in table.notes
    apart = [result("random", linear=1.0, step=1), result("random", "dtd", linear=2.0, step=2)]
    table = transfer_table(apart, published=False)
    assert cells(table, "random") == ["1.0", "not run"]
    assert cells(table, "random (2)") == ["not run", "2.0"]


def test_a_narrow_terminal_has_sets_as_rows():
    results = [result("runs/x", name, linear=50.0) for name in SIMCLR12]
    table = transfer_table(results)
    wide = max(map(len, table.markdown().partition("\n\n")[0].splitlines()))
    assert table.markdown(wide) == table.markdown()
    narrow = table.markdown(wide - 1)
    first = (
        "| **Linear evaluation** | runs/x | *SimCLR (4x)* [a] | *supervised (4x)* [a] | "
        "*SimCLR (1x)* [b] |"
    )
    assert narrow.splitlines()[0] == first
    assert len(narrow.partition("\n\n")[0].splitlines()) == 2 + 12
    assert narrow.partition("\n\n")[2] == table.markdown().partition("\n\n")[2]  # the notes


def test_markdown_shows_any_name_as_it_is():
    table = transfer_table([result("a|b_c*_d", linear=50.0, failed={"knn": "<Tensor|x>"})])
    lines = table.markdown().partition("\n\n")[0].splitlines()
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {3}
    assert "| a\\|b_c\\*\\_d " in table.markdown()
    assert "\\<Tensor\\|x>" in table.markdown()


def odd_table():
    results = [
        result(r"runs/a_b%&#{}$~^\--|<>", "cifar10", linear=50.0, knn=3.0, differs="50 % & more"),
        result("[x]", "cifar10", linear=51.0, knn=4.0, differs="50 % & more"),
        gone("*", "dtd"),
        result("[x]", "cub200", retrieval={"recall@1": 3.0}, title="CUB_200"),
    ]
    return transfer_table(results)


def test_latex_is_balanced_and_its_rows_are_full():
    text = odd_table().latex()
    escaped = r"runs/a\_b\%\&\#\{\}\$\textasciitilde{}\textasciicircum{}\textbackslash{}-{}-"
    assert escaped + r"\textbar{}\textless{}\textgreater{} & " in text
    assert r"{[}x]" in text
    assert r"50 \% \& more" in text
    bare = re.sub(r"\\[&%$#_{}]", "", text)
    assert bare.count("{") == bare.count("}")
    for depth in (bare[:i].count("{") - bare[:i].count("}") for i in range(len(bare))):
        assert depth >= 0
    opened = []
    for kind, name in re.findall(r"\\(begin|end){(\w+)}", text):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened
    tabulars = re.findall(r"\\begin{tabular}{(\w+)}\n(.*?)\\end{tabular}", bare, re.S)
    assert [columns for columns, _ in tabulars] == ["lrr", "llr"]
    for columns, body in tabulars:
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert len(rows) > 1
        assert {row.count("&") + 1 for row in rows if "multicolumn" not in row} == {len(columns)}
        assert not any(row.startswith(("[", "*")) for row in rows)  # arguments of \\ before
    assert not re.search(r"(?<!\\)[#$^~_]", text)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex")
def test_latex_compiles(tmp_path):
    (tmp_path / "t.tex").write_text(odd_table().latex())
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-2000:]


def test_csv_has_a_row_for_every_cell():
    results = [
        result("runs/x", "dtd", linear=50.123456, finetune=score("finetune", 1.0, cut=CUT)),
        result("runs/x", "flowers102", linear=1.0, failed={"finetune": 'says "no", twice'}),
        gone("runs/x", "food101"),
    ]
    rows = list(csv.DictReader(io.StringIO(transfer_table(results).csv())))
    ours = [row for row in rows if row["source"] == "sslkit"]
    assert len(ours) == 3 * 2
    assert len(rows) - len(ours) == 3 * 6
    by_key = {(row["target"], row["protocol"], row["data"]): row for row in rows}
    linear = by_key["runs/x", "linear", "dtd"]
    assert float(linear["score"]) == 50.123456
    assert linear["protocol_id"] == "linear/1:0a1b2c3d"
    assert (linear["status"], linear["metric"], linear["n_train"]) == ("scored", "accuracy", "40")
    assert by_key["runs/x", "finetune", "dtd"]["cut"] == CUT
    failed = by_key["runs/x", "finetune", "flowers102"]
    assert [failed[k] for k in ("status", "score", "note")] == ["failed", "", 'says "no", twice']
    absent = by_key["runs/x", "linear", "food101"]
    assert absent["status"] == "absent"
    assert absent["note"].startswith("food101 is not at data/food101")
    paper = by_key["SimCLR (4x)", "finetune", "flowers102"]
    assert [paper[k] for k in ("status", "score", "backbone")] == [
        "published",
        "97.6",
        "ResNet-50 (4x)",
    ]
    assert paper["metric"] == "mean_per_class"


def test_json_gives_the_same_results_and_the_same_table():
    results = [result("runs/x", "dtd", linear=50.123456), gone("runs/x", "food101")]
    table = transfer_table(results)
    loaded = json.loads(table.json())
    assert loaded["results"] == results
    assert transfer_table(loaded["results"]).markdown() == table.markdown()
    assert [row["target"] for row in loaded["published"]] == ["SimCLR", "supervised", "SimCLR"]


def test_what_is_not_finite_is_a_failure_and_never_in_json():
    results = [result("runs/x", "dtd", linear=math.nan, knn={"accuracy": 3.0, "l2": math.inf})]
    table = transfer_table(results)

    def refuse(constant):
        raise AssertionError(constant)

    loaded = json.loads(table.json(), parse_constant=refuse)
    assert loaded["results"][0]["protocols"]["knn"] == {"accuracy": 3.0, "l2": None}
    assert cells(table, "runs/x") == ["failed"]
    note = "Failed (Linear evaluation, runs/x, DTD): its accuracy is nan"
    assert note in table.notes


def test_a_score_without_its_number_is_a_failure():
    table = transfer_table([result(linear={"metric": "map11", "accuracy": 3.0}, retrieval={})])
    assert cells(table, "runs/x") == ["failed"]
    assert "Failed (Linear evaluation, runs/x, CIFAR-10): its map11 is None" in table.notes
    assert "Failed (Retrieval, runs/x, CIFAR-10): its recall@1 is None" in table.notes


def test_save_writes_every_form(tmp_path):
    table = transfer_table([result(linear=50.0)])
    paths = table.save(tmp_path / "new", "t")
    assert [path.name for path in paths] == ["t.md", "t.csv", "t.tex", "t.json"]
    texts = [path.read_text() for path in paths]
    assert texts == [table.markdown() + "\n", table.csv(), table.latex(), table.json()]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == sorted(p.name for p in paths)
    with pytest.raises(FrozenInstanceError):
        table.notes = []


def test_bad_input():
    with pytest.raises(ValueError, match="needs results, and there are none"):
        transfer_table([])
    with pytest.raises(ValueError, match="a result needs its 'protocols', but has target, data"):
        transfer_table([{"target": "x", "data": "y"}])
