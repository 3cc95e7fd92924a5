"""Does the table of generators in front of other models say what the data files say, beside the published rows?"""

import json
from pathlib import Path

from tools.tables.accuracy import transfers
from tools.tables.transfer import other_recipe

RESULT = Path(__file__).parents[2] / "results" / "result-UNetL-VGG11-cifar10-modern-neuralfuse_2022-0.01.json"


def test_with_and_without_published_rows(tmp_path: Path) -> None:
    """One surrogate, of which the paper's Table 11 has a row; two at once, of which no paper has one; no transfer."""
    (tmp_path / "results").mkdir()
    for source in ("VGG11", "ResNet18", "ResNet18+VGG7"):
        result = json.loads(RESULT.read_text(encoding="utf-8"))
        result["cell"]["generator"] |= {"source": source, "bit_error_rate": 0.01}
        result["correct"] |= {"clean": [8000], "perturbed_fused": [6000] * 10}
        path = tmp_path / "results" / f"result-of-{source}.json"
        path.write_text(json.dumps(result), encoding="utf-8")
    lines = [line for line in transfers(tmp_path).splitlines() if line.startswith("|")][2:]
    found = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    assert [(row[0], row[1], row[5], row[7], row[9]) for row in found] == [
        ("VGG11 at 1 %, UNetL of ResNet18", "the paper", "61.06 ± 8.49", "69.1", "82.5"),
        ("", "`neuralfuse_2022`", "60.00 ± 0.00", "75.0", "0.60"),
        ("VGG11 at 1 %, UNetL of ResNet18 and VGG7", "not in the paper", "", "", ""),
        ("", "`neuralfuse_2022`", "60.00 ± 0.00", "75.0", "0.60"),
    ]


def test_another_recipe(tmp_path: Path) -> None:
    """The name of a file says which generator of which surrogates it is about."""
    folder = tmp_path / "results" / "transfer"
    folder.mkdir(parents=True)
    content = json.loads((RESULT.parent / "shipped" / "evaluate-0.03.json").read_text(encoding="utf-8"))
    content["configuration"] |= {"model": "VGG16", "images": 7, "chips": [1, 2, 3], "compute": "bfloat16"}
    content["configuration"]["trained"]["recipe"]["name"] = "paper, 2 epochs"
    of = {row["name"]: row for row in content["accuracy"]}
    of["P.A.+N.F."] |= {"mean": 0.5, "std": 0.25}
    (folder / "VGG16-paper-ConvL-ResNet18+VGG7.json").write_text(json.dumps(content), encoding="utf-8")
    (row,) = [line for line in other_recipe(tmp_path).splitlines() if line.startswith("|")][2:]
    assert row.startswith("| VGG16 by `paper`, ConvL of ResNet18 and VGG7 | ")
    assert "| 50.00 ±25.00 | [1] |" in row
    assert "- [1] 3 chips, 7 images, in bfloat16; " in other_recipe(tmp_path)
