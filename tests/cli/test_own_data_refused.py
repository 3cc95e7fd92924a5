"""Do own data, models and metrics that don't fit end in one line?"""

import numpy as np
import pytest

from tests.cli.own_pictures import pictures

SWEEP, RATE = ["sweep-voltage", "--voltages", "1"], ["--bit-error-rate", "0.01"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--model", "@hundred", "--dataset", "digits"], "returns [2, 100] for 2 images; digits needs logits [2, 10]"),
        (["--model", "@ten", "--data", "@absent"], "data 'own_data_module:absent': module 'own_data_module' has no"),
        (["--model", "@ten", "--data", "@constant"], "'constant' is of type int; give a function that returns batches"),
        (["--model", "@ten", "--data", "no_such_module:f"], "importing 'no_such_module' failed"),
        (["--model", "@ten", "--data", "@fails"], "data 'own_data_module:fails' fails (OSError: the disk is)"),
        (["--model", "@ten", "--data", "@strings"], "data 'own_data_module:strings': a batch is a str: it must be"),
        (["--model", "@ten", "--data", "@seven"], "it gives a int, not an iterable of batches"),
        (["--model", "@ten", "--data", "@nothing"], "gives no samples"),
        (["--model", "@ten", "--data", "@columns"], "accuracy needs logits [N, classes] and integer labels [N], not"),
        (["--model", "@ten", "--data", "@rows"], "fails on inputs float32 [100, 8, 8]: mat1 and mat2"),
        (["--model", "@Pixels", "--data", "@pixels"], "take the metric mean_iou or your own"),
        (["--model", "@ten", "--data", "nowhere"], "--data nowhere: no such folder; your own function is"),
        (["--model", "@ten", "--data", "empty"], "empty holds no folders: one for each class is needed"),
        (["--model", "@ten", "--data", "bare"], "a holds no picture (.png, .jpg"),
        (["--model", "@ten", "--data", "damaged"], "000.png is not a whole picture: "),
        (["--model", "@ten", "--data", "@rows", "--dataset", "digits"], "--data cannot be combined with --dataset"),
        (["--model", "@ten", "--data", "@rows", "--mean", "1"], "--mean is for the pictures of a folder"),
        (["--model", "@ten", "--dataset", "digits", "--input-size", "1x2x3"], "add --data FOLDER"),
        (["--model", "@ten", "--data", "good", "--input-size", "28"], "write channels x height x width, such as"),
        (["--model", "@ten", "--data", "good", "--input-size", "2x8x8"], "1 (grey) or 3 (RGB) channels"),
        (["--model", "@ten", "--data", "good", "--mean", "0.5"], "--mean and --std belong together"),
        (["--model", "@ten", "--data", "good", "--mean", "a", "--std", "1"], "--mean 'a': write a number"),
        (["--model", "@ten", "--data", "good", "--mean", "0,0", "--std", "1,1"], "don't fit torch.uint8"),
        (["--model", "@ten", "--data", "good", "--mean", "0", "--std", "0"], "a std above 0"),
        (["--model", "@ten", "--data", "good", "--images", "9"], "good has 2 pictures, choose 1 to 2"),
        (["--model", "@ten", "--data", "good"], "returns [2, 10] for 2 images; good needs logits [2, 2]"),
        (["--model", "@Rows", "--data", "@rows", "--images", "999"], "has 359, choose 1 to 359"),
        (["--model", "@Rows", "--data", "@rows", "--metric", "speed"], "unknown metric 'speed': it can be accuracy"),
        (["--model", "@Rows", "--data", "@rows", "--metric", "@seven"], "metric <lambda> is no metric"),
        (["--model", "@Rows", "--data", "@rows", "--metric", "@absent"], "has no 'absent'"),
        (["--model", "@Rows", "--data", "@rows", "--metric", "@Broken"], "metric Broken gives no number: no number"),
        (["--model", "@Rows", "--data", "@rows", "--metric", "mse"], "a regression error needs answers and targets"),
        (["--model", "@two", "--data", "good", "--input-size", "1x28x28", "--generator", "GENERATOR"],
         "generator ConvXS takes images of 3 channels whose height and width are multiples of 8, such as 3x32x32"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", [SWEEP, ["evaluate", *RATE]], ids=["sweep", "evaluate"])
def test_one_line_and_status_2(here, run, command, words, complaint):
    from neuralfuse import bundled

    pictures(here / "good", {name: [np.zeros((8, 8, 3), np.uint8)] for name in "ab"})
    pictures(here / "damaged", {"a": [np.zeros((8, 8, 3), np.uint8)]})
    (here / "damaged" / "a" / "000.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (here / "empty").mkdir()
    (here / "bare" / "a").mkdir(parents=True)
    words = [str(bundled.WEIGHTS) if word == "GENERATOR" else word for word in words]
    code, out, err = run(*command, *words, "--device", "cpu", "--chips", "2")
    assert code == 2, (out, err)
    line = [text for text in err.splitlines() if "warning" not in text]
    assert len(line) == 1, err
    assert line[0].startswith("faultsim: error: ")
    assert complaint in line[0]
    assert len(line[0]) < 400


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["train-base", "--model", "@Rows", "--data", "@rows", "--out", "x.safetensors"],
         "--data and --test-data belong together"),
        (["train-base", "--model", "@Rows", "--data", "@tokens", "--test-data", "@rows", "--out", "x.safetensors"],
         "training needs batches (one tensor of inputs, class numbers [N])"),
        (["train-base", "--model", "@ten", "--data", "@train_rows", "--test-data", "@rows", "--out", "x.safetensors"],
         "fails on images [2, 8, 8]"),
        (["train-base", "--model", "@Rows", "--data", "@rows", "--test-data", "@rows", "--cutout", "8", "--out",
          "x.safetensors"], "--cutout cannot be combined with your own data"),
        (["energy", "--model", "ResNet18", "--data", "@rows", "--input-shape", "3x8x8"], "cannot be combined with"),
        (["energy", "--model", "ResNet18", "--generator", "ConvL", "--input-shape", "1x28x28"],
         "the data gives 1x28x28"),
        (["energy", "--model", "@ten", "--data", "@rows"], "can't be traced: it fails on one input of shape (8, 8)"),
        (["export", "--model", "@Tokens", "--data", "@tokens", "--onnx", "x.onnx"], "a model with one input"),
        (["sweep-voltage", "--metric", "mse", "--accuracy-floor", "0.9"],
         "cannot be combined with the metric mean squared error"),
    ],
)  # fmt: skip
def test_other_commands_refuse_in_one_line(here, run, words, complaint):
    code, out, err = run(*words)
    assert code == 2, (out, err)
    assert err.count("\n") == 1
    assert complaint in err
