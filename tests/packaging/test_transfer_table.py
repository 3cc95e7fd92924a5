"""Does the table of generators in front of other models say what the data files say, beside the published rows?"""

import json
from pathlib import Path

from tools.tables.accuracy import transfers

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
        ("VGG11 at 1 %, UNetL of ResNet18 and VGG7", "the paper", "", "", ""),
        ("", "`neuralfuse_2022`", "60.00 ± 0.00", "75.0", "0.60"),
    ]
