"""Black boxes in this process: what goes in and comes out, and that nothing else does."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from faultsim import (
    Chip,
    FaultModel,
    FaultsimError,
    StoredWeights,
    bundled,
    evaluate,
    evaluation_chips,
    load_weights,
    models,
)
from faultsim.data import iterate_batches, load
from neuralfuse import generators
from neuralfuse.blackbox import wire
from neuralfuse.blackbox.box import BlackBox, PythonCallable, check_classes, check_images
from neuralfuse.blackbox.chip import ModelOnChip
from neuralfuse.blackbox.evaluation import evaluate_restricted
from neuralfuse.blackbox.onnxfile import OnnxFile


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 3, 32, 32)).astype(np.float32)


def some_data(count: int = 7) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Digits, in batches of 4."""
    return list(iterate_batches(load("digits", "test").subset(torch.arange(count)), 4))


@pytest.fixture
def network() -> torch.nn.Module:
    """Trained, so that different images get different answers."""
    made = models.create("DigitsNet")
    load_weights(made, bundled.WEIGHTS)
    return made.eval()


class Sealed:
    """A black box of which really nothing but `predict` can be touched: everything else raises."""

    def __init__(self, predict) -> None:
        object.__setattr__(self, "_predict", predict)

    def __getattribute__(self, name: str):
        if name != "predict":
            raise AssertionError(f"somebody looks at {name}")
        return object.__getattribute__(self, "_predict")


class Guarded(torch.nn.Module):
    """A model whose weights can be reached only while it predicts. Its gradients are on."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.predicting = False
        self.seen: list[object] = []

    def __getattr__(self, name: str):
        if name == "inner" and not self.__dict__["predicting"]:
            raise AssertionError("somebody reaches for the weights")
        return super().__getattr__(name)

    def predict(self, images: np.ndarray) -> np.ndarray:
        self.seen.append(images)
        self.predicting = True
        try:
            with torch.enable_grad():
                logits = self.inner(torch.tensor(images))
            assert logits.requires_grad  # there would be a gradient to take
            return logits.argmax(1).numpy()
        finally:
            self.predicting = False


def test_no_weight_and_no_gradient_is_read(network, monkeypatch):
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("somebody asks for a gradient")

    fuse = generators.NeuralFuse(generators.create("UNetS")).train()
    before = {name: value.clone() for name, value in fuse.state_dict().items()}
    guarded = Guarded(network)
    with pytest.raises(AssertionError, match="reaches for the weights"):
        _ = guarded.inner  # the guard is awake
    with monkeypatch.context() as patch:
        for owner, name in (
            (torch.Tensor, "backward"),
            (torch.autograd, "grad"),
            (torch.autograd, "backward"),
        ):
            patch.setattr(owner, name, forbidden)
        with torch.enable_grad():
            found = evaluate_restricted([Sealed(guarded.predict)], some_data(), fuse)
    # what goes in is plain arrays, with no graph behind them
    assert len(guarded.seen) == 4
    assert {type(images) for images in guarded.seen} == {np.ndarray}
    assert all(p.grad is None for p in [*network.parameters(), *fuse.parameters()])
    assert all(torch.equal(value, before[name]) for name, value in fuse.state_dict().items())
    # and the figures are those of a plain evaluation
    with torch.no_grad():
        for evaluation, front in ((found.alone, torch.nn.Identity()), (found.fused, fuse)):
            right = sum(int((network(front(x)).argmax(1) == y).sum()) for x, y in some_data())
            assert evaluation.correct == (right,)
            assert evaluation.images == 7


def test_several_boxes_have_their_own_counts():
    data = some_data()
    fuse = generators.NeuralFuse(generators.create("UNetS"))
    labels = torch.cat([y for _, y in data]).numpy()
    answers = iter([labels[:4], labels[:4], labels[4:], labels[4:]])
    found = evaluate_restricted(
        [PythonCallable(lambda images: [11] * len(images)), PythonCallable(lambda _: next(answers))],
        data,
        fuse,
    )
    assert (found.alone.correct, found.fused.correct) == ((0, 7), (0, 7))
    assert found.improvement.mean == 0.0
    alone = evaluate_restricted([PythonCallable(lambda images: [11] * len(images))], data)
    assert (alone.fused, alone.improvement) == (None, None)


def test_nothing_to_evaluate():
    with pytest.raises(FaultsimError, match="at least one"):
        evaluate_restricted([], some_data())
    with pytest.raises(FaultsimError, match="no images"):
        evaluate_restricted([PythonCallable(len)], [])


@pytest.mark.parametrize("kind", ["flip", "stuck_at_random", "transient"])
def test_a_model_on_a_chip_is_that_of_evaluate(network, kind):
    faults, data, chip = FaultModel(kind), some_data(40), evaluation_chips(3, 2)[1]
    weights = [p.clone() for p in network.parameters()]
    stored = StoredWeights.of(network)
    box = ModelOnChip(network, stored, chip, bit_error_rate=0.05, faults=faults)
    expected = evaluate(network, data, [chip], bit_error_rate=0.05, faults=faults, stored=stored)
    assert evaluate_restricted([box], data).alone == expected
    assert isinstance(box, BlackBox)
    assert all(torch.equal(a, b) for a, b in zip(weights, network.parameters(), strict=True))


def test_chips_and_rates_matter(network):
    stored, images = StoredWeights.of(network), torch.cat([x for x, _ in some_data(64)]).numpy()

    def ask(seed: int, rate: float) -> np.ndarray:
        return ModelOnChip(network, stored, Chip(seed), bit_error_rate=rate, faults=FaultModel()).predict(
            images
        )

    assert (ask(1, 0.1) != ask(2, 0.1)).any()
    assert (ask(1, 0.1) != ask(1, 0.0)).any()
    assert (ask(1, 0.1) == ask(1, 0.1)).all()


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (pictures(2).astype(np.float64), "float32"),
        (pictures(2)[0], r"\[B, C, H, W\]"),
        (pictures(2)[:0], "empty"),
        (pictures(2) * 2, "within"),
        (np.full_like(pictures(1), np.nan), "within"),
        (np.where(pictures(1) > 0.99, np.float32(np.inf), pictures(1)), "within"),
    ],
)
def test_images_that_no_box_takes(images, words):
    with pytest.raises(FaultsimError, match=words):
        check_images(images)


@pytest.mark.parametrize(
    "answer",
    [[0.0, 1.0], [0, 1, 2], [[0, 1]], [0, -1], ["a", "b"], [True, False], [[0], [1, 2]], None, object()],
)
def test_answers_that_are_no_classes(answer):
    with pytest.raises(FaultsimError, match="the driver answers"):
        check_classes(answer, 2, "the driver")


def test_a_function_that_fails():
    with pytest.raises(FaultsimError, match=r"the driver fails on images \[2, 3, 32, 32\]: KeyError: 'x'"):
        PythonCallable(lambda _: {}["x"], "the driver").predict(pictures(2))


def test_answers_become_int64():
    for answer in ([3, 4], (3, 4), np.array([3, 4], np.uint8)):
        found = PythonCallable(lambda _, answer=answer: answer).predict(pictures(2))
        assert (found.dtype, found.tolist()) == (np.int64, [3, 4])


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)))
def test_arrays_arrive_as_they_were_sent(array):
    body = wire.to_npy(array)
    found = wire.from_npy(bytearray(body), wire.IMAGES)
    assert found.shape == array.shape
    assert found.tobytes() == array.tobytes()
    assert len(body) <= wire.HEADER + array.nbytes


@given(st.data())
def test_damaged_arrays_are_refused_or_harmless(data):
    body = bytearray(wire.to_npy(pictures(1)[:, :, :2, :2]))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, 127))] = data.draw(st.integers(0, 255))
    body = body[: data.draw(st.integers(0, len(body)))] + data.draw(st.binary(max_size=20))
    try:
        found = wire.from_npy(body, wire.IMAGES)
    except FaultsimError:
        return
    assert found.dtype == wire.IMAGES
    assert found.nbytes <= len(body)


@given(st.binary(max_size=60))
def test_foreign_bytes_are_refused(body):
    for read in (lambda: wire.from_npy(bytearray(body), wire.IMAGES), lambda: wire.images_from_json(body)):
        with pytest.raises(FaultsimError):
            read()


def test_arrays_of_objects_are_never_loaded():
    import io

    for array in (np.array([print], object), np.array(["a"]), np.zeros(3, [("a", "f4")])):
        file = io.BytesIO()
        np.save(file, array, allow_pickle=True)
        with pytest.raises(FaultsimError):
            wire.from_npy(file.getvalue(), wire.IMAGES)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(_json)
def test_any_json_is_numbers_or_refused(value):
    body = json.dumps({"images": value}).encode()
    try:
        found = wire.images_from_json(body)
    except FaultsimError:
        return
    assert found.dtype == np.float32


def test_json_that_is_deep_is_refused():
    for body in (b"[" * 100_000, b'{"images":' * 50_000, b'{"images": ' + b"[" * 900 + b"]" * 900 + b"}"):
        with pytest.raises(FaultsimError):
            check_images(wire.images_from_json(body))


def test_json_keeps_every_bit():
    images = pictures(2)
    body = json.dumps({"images": images.tolist()}).encode()
    assert wire.images_from_json(body).tobytes() == images.tobytes()


def test_a_description_travels():
    told = wire.Description("digits classifier", (3, 32, 32), 10, wire.Limits(7, 1 << 20, 2.5))
    assert wire.Description.from_json(json.loads(json.dumps(told.as_json()))) == told
    assert told.images_at_once == 7
    assert wire.Description("", (3, 32, 32), 10, wire.Limits(body=20_000)).images_at_once == 1
    assert wire.Description("", (3, 32, 32), 10, wire.Limits(body=100)).images_at_once == 0


@given(_json)
def test_other_descriptions_are_refused(value):
    with pytest.raises(FaultsimError, match="doesn't describe itself"):
        wire.Description.from_json(value)


@pytest.mark.parametrize(
    "limits", [(0, 1, 1.0), (1, 0, 1.0), (1, 1, 0.0), (1, 1, float("nan")), (2**40, 1, 1.0)]
)
def test_limits_have_limits(limits):
    with pytest.raises(FaultsimError, match="limit"):
        wire.Limits(*limits)


def onnx_file(path, batch: int | str, output: str):
    """A classifier that sums each color: scores [B, 3], or the class of the largest."""
    import onnx
    from onnx import TensorProto, helper

    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, 32, 32])
    nodes = [
        helper.make_node("ReduceSum", ["images", "axes"], ["scores"], keepdims=0),
        helper.make_node("ArgMax", ["scores"], ["classes"], axis=1, keepdims=0),
    ]
    kinds = {"scores": (TensorProto.FLOAT, [batch, 3]), "classes": (TensorProto.INT64, [batch])}
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    outputs = [helper.make_tensor_value_info(output, *kinds[output])]
    graph = helper.make_graph(nodes, "sums", [images], outputs, [axes])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


@pytest.mark.parametrize("batch", ["B", 1, 3, 8])
@pytest.mark.parametrize("output", ["scores", "classes"])
def test_an_onnx_file_is_a_black_box(tmp_path, batch, output):
    box = OnnxFile(onnx_file(tmp_path / "m.onnx", batch, output))
    images = pictures(7)
    found = box.predict(images)
    assert found.dtype == np.int64
    assert found.tolist() == images.sum(axis=(2, 3)).argmax(1).tolist()
    with pytest.raises(FaultsimError, match=r"takes images \[3, 32, 32\], not \[3, 16, 16\]"):
        box.predict(images[:, :, :16, :16].copy())


def test_onnx_files_that_are_none(tmp_path):
    with pytest.raises(FaultsimError, match="does not exist"):
        OnnxFile(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no protobuf at all")
    with pytest.raises(FaultsimError, match=r"bad.onnx is no ONNX model that onnxruntime can run"):
        OnnxFile(tmp_path / "bad.onnx")
