"""Augmentation and batches: what may come out, how it is distributed, and that seeds decide it."""

import os
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from faultsim.data import Augmentation, Dataset, draw_order, find_augmentation, iterate_batches, normalize
from faultsim.data.augment import GRAY, cut_out, scale_and_move, shift_and_mirror
from faultsim.errors import FaultsimError

quick = settings(deadline=None, max_examples=50)
sizes = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 12), st.integers(1, 12))


def generator(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def pictures(shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(seed))


@quick
@given(sizes, st.integers(0, 5), st.booleans(), st.booleans(), st.integers(0, 2**40))
def test_shape_and_type_stay_and_the_seed_decides(shape, padding, flip, affine, seed):
    images = pictures(shape)
    before = images.clone()
    augment = Augmentation(padding, flip, *((0.35, (0.65, 1.35)) if affine else ()))
    out = augment(images, generator(seed))
    assert (out.shape, out.dtype, out.device) == (images.shape, torch.uint8, images.device)
    assert torch.equal(out, augment(images, generator(seed)))
    assert torch.equal(images, before)


@quick
@given(sizes, st.data())
def test_a_shift_cuts_a_window_out_of_the_padded_picture(shape, data):
    images = pictures(shape)
    count, _, height, width = shape
    offsets = st.lists(st.integers(-4, 4), min_size=count, max_size=count)
    shifts = torch.tensor([data.draw(offsets), data.draw(offsets)], dtype=torch.int64).reshape(2, count)
    mirrored = torch.tensor(
        data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=torch.bool
    )
    out = shift_and_mirror(images, shifts, mirrored)
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4))
    for index in range(count):
        down, right = (shifts[:, index] + 4).tolist()
        window = padded[index, :, down : down + height, right : right + width]
        assert torch.equal(out[index], window.flip(-1) if mirrored[index] else window)


@quick
@given(sizes, st.integers(1, 14), st.data())
def test_cutout_makes_one_square_gray(shape, edge, data):
    images = pictures(shape).clamp(max=GRAY - 1)
    count, _, height, width = shape
    fractions = st.lists(st.floats(0, 1, exclude_max=True, width=32), min_size=count, max_size=count)
    centers = torch.tensor([data.draw(fractions), data.draw(fractions)])
    out = cut_out(images, edge, centers)
    for index in range(count):
        top, left = (
            int(float(center) * size) - edge // 2
            for center, size in zip(centers[:, index], (height, width), strict=True)
        )
        expected = images[index].clone()
        expected[:, max(0, top) : max(0, top + edge), max(0, left) : max(0, left + edge)] = GRAY
        assert torch.equal(out[index], expected)


def test_squares_lie_anywhere():
    # The centers' rows and columns: each of 32 is expected 200 times, with a standard deviation of 14; 100 to 300 is
    # 7 of them (false alarm below 1e-9).
    images = torch.zeros(32 * 200, 1, 32, 32, dtype=torch.uint8)
    out = Augmentation(0, False, cutout=1)(images, generator(3))
    assert (out.sum((1, 2, 3)) == GRAY).all()
    for places in (out[:, 0].amax(2).argmax(1), out[:, 0].amax(1).argmax(1)):
        counts = places.bincount(minlength=32)
        assert counts.min() > 100
        assert counts.max() < 300


@quick
@given(sizes)
def test_flipping_twice_gives_the_picture_back(shape):
    images = pictures(shape)
    still = torch.zeros(2, shape[0], dtype=torch.int64)
    every = torch.ones(shape[0], dtype=torch.bool)
    assert torch.equal(shift_and_mirror(images, still, every), images.flip(-1))
    assert torch.equal(shift_and_mirror(shift_and_mirror(images, still, every), still, every), images)


def test_crop_offsets_and_flips_are_uniform():
    # One white pixel off the middle tells shift and flip. Each of 9 x 9 x 2 outcomes is expected 200 times,
    # with a standard deviation of 14; 100 to 300 is 7 of them (false alarm below 1e-9).
    count = 162 * 200
    images = torch.zeros(count, 1, 32, 32, dtype=torch.uint8)
    images[:, 0, 16, 10] = 255
    places = Augmentation()(images, generator(5))[:, 0].nonzero()[:, 1:].tolist()
    seen = Counter(map(tuple, places))
    expected = {(y, x) for y in range(12, 21) for x in (*range(6, 15), *range(17, 26))}
    assert set(seen) == expected
    assert min(seen.values()) > 100
    assert max(seen.values()) < 300


def test_an_empty_batch_stays_empty():
    for name in ("cifar10", "gtsrb"):
        assert find_augmentation(name)(pictures((0, 3, 32, 32)), generator()).shape == (0, 3, 32, 32)


def test_without_padding_and_flip_nothing_changes():
    images = pictures((6, 3, 32, 32))
    assert torch.equal(Augmentation(padding=0, flip=False)(images, generator()), images)


def test_what_slides_in_is_black_which_normalizes_to_minus_one():
    white = torch.full((64, 3, 32, 32), 255, dtype=torch.uint8)
    for augment in (find_augmentation("cifar10"), find_augmentation("gtsrb")):
        values = normalize(augment(white, generator(2)))
        assert float(values.min()) == -1.0
        assert float(values.max()) == 1.0
    outside = shift_and_mirror(white[:1], torch.tensor([[4], [-4]]), torch.tensor([False]))
    assert normalize(outside)[0, :, 28:].eq(-1).all()
    assert normalize(outside)[0, :, :, :4].eq(-1).all()
    assert normalize(outside)[0, :, :28, 4:].eq(1).all()


@quick
@given(sizes)
def test_the_affine_map_that_does_nothing(shape):
    images = pictures(shape)
    still = scale_and_move(images, torch.zeros(2, shape[0]), torch.ones(shape[0]))
    assert torch.equal(still, images)


@pytest.mark.parametrize(("right", "down"), [(0, 0), (3, 0), (0, -5), (-11, 11)])
def test_moving_by_whole_pixels_is_a_shift(right, down):
    images = pictures((2, 3, 32, 32))
    offsets = torch.tensor([[right / 32] * 2, [down / 32] * 2])
    moved = scale_and_move(images, offsets, torch.ones(2))
    assert torch.equal(
        moved, shift_and_mirror(images, torch.tensor([[-down] * 2, [-right] * 2]), torch.zeros(2) > 0)
    )


def test_scaling_is_about_the_center():
    square = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    square[:, :, 12:20, 12:20] = 255
    for factor, side in ((0.5, 4), (1.0, 8), (2.0, 16)):
        out = scale_and_move(square, torch.zeros(2, 1), torch.tensor([factor]))
        assert torch.equal(out, out.flip(-1))
        assert torch.equal(out, out.flip(-2))
        assert out.long().sum().item() / 255 == pytest.approx(side**2, rel=0.02)


def test_gtsrb_is_moved_and_scaled_over_the_whole_range():
    # Centre of gravity and area of a small square tell move and scale; 4,000 uniform draws come within 1 % of
    # both ends of each range (false alarm below 1e-8).
    count = 4000
    images = torch.zeros(count, 1, 64, 64, dtype=torch.uint8)
    images[:, :, 28:36, 28:36] = 255
    augment = Augmentation(padding=0, flip=False, translate=0.2, scale=(0.65, 1.35))
    out = augment(images, generator(3)).double()
    mass = out.sum((1, 2, 3))
    along = torch.arange(64).double() + 0.5
    x = (out.sum((1, 2)) @ along / mass - 32) / 64
    y = (out.sum((1, 3)) @ along / mass - 32) / 64
    for axis in (x, y):
        assert (float(axis.min()), float(axis.max())) == pytest.approx((-0.2, 0.2), abs=0.004)
        assert abs(float(axis.mean())) < 0.012  # 6.5 standard deviations of the mean
    side = (mass / 255).sqrt() / 8
    assert (float(side.min()), float(side.max())) == pytest.approx((0.65, 1.35), abs=0.03)
    assert abs(float(torch.corrcoef(torch.stack([x, y]))[0, 1])) < 0.1


def test_the_papers_recipes():
    assert (
        find_augmentation("cifar10")
        == find_augmentation("cifar100")
        == Augmentation(4, True, 0.0, (1.0, 1.0))
    )
    assert find_augmentation("gtsrb") == Augmentation(4, True, 0.35, (0.65, 1.35))
    assert not find_augmentation("digits").flip


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"padding": -1}, "padding must be 0 or more"),
        ({"translate": 1.5}, "0 to 1, got 1.5"),
        ({"scale": (0.0, 1.0)}, "0 < low <= high"),
        ({"scale": (1.3, 0.7)}, "0 < low <= high"),
        ({"cutout": -1}, "0 or more pixels, got -1"),
    ],
)
def test_settings_without_meaning_are_refused(settings, reason):
    with pytest.raises(FaultsimError, match=reason):
        Augmentation(**settings)


def test_normalized_pictures_are_refused():
    with pytest.raises(FaultsimError, match=r"uint8 .B, C, H, W. before normalization"):
        Augmentation()(torch.zeros(2, 3, 32, 32), generator())


def made(count) -> Dataset:
    return Dataset(
        images=pictures((count, 3, 32, 32)),
        labels=torch.arange(count),
        class_names=tuple(map(str, range(count))),
        name="made",
        split="train",
    )


@quick
@given(st.integers(0, 3000), st.integers(0, 2**70), st.integers(0, 10**6))
def test_the_order_is_a_permutation_and_a_function_of_seed_and_epoch(count, seed, epoch):
    first = draw_order(count, seed, epoch)
    assert first.sort().values.tolist() == list(range(count))
    assert torch.equal(first, draw_order(count, seed, epoch))
    if count > 50:  # two equal ones by chance: 1 in 50!
        assert not torch.equal(first, draw_order(count, seed, epoch + 1))
        assert not torch.equal(first, draw_order(count, seed + 1, epoch))


def test_the_order_never_changes_between_versions():
    assert draw_order(8, seed=1, epoch=2).tolist() == [2, 6, 7, 4, 1, 5, 0, 3]


@quick
@given(st.integers(1, 40), st.integers(1, 50), st.one_of(st.none(), st.integers(0, 2**40)), st.integers(0, 9))
def test_an_epoch_holds_every_image_once_with_its_label(count, size, seed, epoch):
    dataset = made(count)
    seen = []
    for images, labels in iterate_batches(dataset, size, shuffle_seed=seed, epoch=epoch):
        assert images.shape == (len(labels), 3, 32, 32)
        assert 1 <= len(labels) <= size
        assert torch.equal(images, normalize(dataset.images[labels]))
        seen += labels.tolist()
    expected = range(count) if seed is None else draw_order(count, seed, epoch).tolist()
    assert seen == list(expected)


def test_augmented_batches_repeat_and_differ_between_epochs():
    dataset = made(20)

    def epoch(number, seed=3):
        parts = iterate_batches(
            dataset, 8, shuffle_seed=seed, epoch=number, augment=find_augmentation("gtsrb")
        )
        return torch.cat([images for images, _ in parts])

    assert torch.equal(epoch(0), epoch(0))
    assert not torch.equal(epoch(0).sort(0).values, epoch(1).sort(0).values)
    assert not torch.equal(epoch(0).sort(0).values, epoch(0, seed=4).sort(0).values)


def test_global_random_state_is_neither_used_nor_changed():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = [images for images, _ in iterate_batches(made(9), 4, shuffle_seed=1, augment=Augmentation())]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    again = [images for images, _ in iterate_batches(made(9), 4, shuffle_seed=1, augment=Augmentation())]
    assert all(map(torch.equal, first, again))


def test_wrong_arguments_are_refused_at_once():
    with pytest.raises(FaultsimError, match="batch size must be at least 1"):
        iterate_batches(made(3), 0)
    with pytest.raises(FaultsimError, match="needs shuffle_seed"):
        iterate_batches(made(3), 1, augment=Augmentation())
    with pytest.raises(FaultsimError, match="must not be negative"):
        iterate_batches(made(3), 1, shuffle_seed=-1)


@pytest.mark.cuda
def test_on_a_gpu_the_order_is_the_same_and_nothing_leaves_the_device():
    if not torch.cuda.is_available() and not os.environ.get("FAULTSIM_REQUIRE_CUDA"):
        pytest.skip("no GPU")
    dataset = made(30).to("cuda")
    assert dataset.fingerprint == made(30).fingerprint
    augment = find_augmentation("gtsrb")
    labels = [labels for _, labels in iterate_batches(dataset, 8, shuffle_seed=1, device="cuda")]
    assert torch.cat(labels).tolist() == draw_order(30, 1, 0).tolist()
    runs = [
        list(iterate_batches(dataset, 8, shuffle_seed=1, device="cuda", augment=augment)) for _ in range(2)
    ]
    for (first, _), (again, _) in zip(*runs, strict=True):
        assert first.is_cuda
        assert torch.equal(first, again)
    plain = torch.cat([images for images, _ in iterate_batches(dataset, 8, device="cuda")])
    assert torch.equal(plain.cpu(), normalize(made(30).images))
    # The same draws give the same pixels as on the CPU: exactly for shifts, to rounding for the affine map.
    shifts, mirrored = torch.randint(-4, 5, (2, 30)), torch.rand(30) < 0.5
    images = made(30).images
    assert torch.equal(
        shift_and_mirror(images.cuda(), shifts.cuda(), mirrored.cuda()).cpu(),
        shift_and_mirror(images, shifts, mirrored),
    )
    offsets, factors = torch.rand(2, 30) - 0.5, torch.rand(30) + 0.5
    on_gpu = scale_and_move(images.cuda(), offsets.cuda(), factors.cuda()).cpu()
    assert (on_gpu.int() - scale_and_move(images, offsets, factors).int()).abs().max() <= 1
