"""SCALE-Sim's topology files: what is written reads back to the same counts, here and in SCALE-Sim."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energy import EnergyError, Layer, count, read_topology, write_topology

HEADER = (
    "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n"
)


GEMM = "Layer, M, N, K,\n"


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    kernel, more, stride = draw(st.integers(1, 4)), draw(st.integers(0, 5)), draw(st.integers(1, 3))
    name = draw(st.sampled_from(["conv", "DPconv", "a, b", "features.0", "new\nline"]))
    channels, filters, repeats = (draw(st.integers(1, 5)) for _ in range(3))
    return Layer(
        name, kernel + more, kernel + 2 * more, kernel, kernel, channels, filters, stride, stride, repeats
    )


@given(st.lists(layers(), min_size=1, max_size=4))
def test_a_topology_reads_back_to_the_same_counts(tmp_path: Path, network: list[Layer]) -> None:
    path = tmp_path / "network.csv"
    write_topology(network, path)
    assert count(read_topology(path)).total.filter_reads == count(network).total.filter_reads
    assert sum(layer.macs for layer in read_topology(path)) == sum(layer.macs for layer in network)


@given(st.lists(layers(), min_size=1, max_size=4))
def test_scalesim_reads_the_file_as_the_same_layers(tmp_path: Path, network: list[Layer]) -> None:
    from scalesim.topology_utils import topologies

    path = tmp_path / "network.csv"
    write_topology(network, path)
    theirs = topologies()
    theirs.load_arrays(str(path))
    assert theirs.get_all_mac_ops() == sum(layer.macs for layer in network)
    ours = [
        [one.input_height, one.input_width, one.kernel_height, one.kernel_width, one.channels, one.filters]
        for one in read_topology(path)
        for _ in range(one.repeats)
    ]
    assert [row[1:7] for row in theirs.topo_arrays] == ours


def test_the_file_is_the_one_that_scalesim_documents(tmp_path: Path) -> None:
    path = tmp_path / "network.csv"
    write_topology([Layer("conv", 34, 34, 3, 3, 3, 64), Layer("depth", 10, 10, 3, 3, 1, 1, repeats=8)], path)
    assert path.read_text() == HEADER + "conv, 34, 34, 3, 3, 3, 64, 1,\ndepth_DP, 10, 10, 3, 3, 8, 1, 1,\n"
    assert [p.name for p in tmp_path.iterdir()] == ["network.csv"]


def test_reads_what_people_write(tmp_path: Path) -> None:
    path = tmp_path / "network.csv"
    path.write_text(
        "\ufeff" + HEADER + "\nconv,34,34,3,3,3,64,1,1:1,\r\nno_comma, 5, 5, 3, 3, 1, 1, 2\n,,,\n"
    )
    assert read_topology(path) == [
        Layer("conv", 34, 34, 3, 3, 3, 64),
        Layer("no_comma", 5, 5, 3, 3, 1, 1, 2, 2),
    ]


def mobilenet() -> str:
    """MobileNet as SCALE-Sim's own conv_nets/mobilnet_paper.csv has it: depthwise layers as one filter of one channel,
    most of them with a comment after the last comma, the five of the middle without."""
    rows, size, channels = [(224, 3, 3, 32, 2, "")], 112, 32
    for filters, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)):
        rows.append((size, 3, 1, 1, stride, "#dw"))
        size //= stride
        rows.append((size, 1, channels, filters, 1, ""))
        channels = filters
    rows += [(14, 3, 1, 1, 1, ""), (14, 1, 512, 512, 1, "")] * 5
    rows += [
        (14, 3, 1, 1, 2, "#dw"),
        (7, 1, 512, 1024, 1, ""),
        (7, 3, 1, 1, 2, "#dw"),
        (7, 1, 1024, 1024, 1, ""),
    ]
    rows.append((1, 1, 1024, 1000, 1, ""))
    lines = [
        f"L{i}, {s}, {s}, {k}, {k}, {c}, {f}, {t},{note}" for i, (s, k, c, f, t, note) in enumerate(rows)
    ]
    return HEADER + "\n".join(lines) + "\n"


def test_comments_after_the_last_comma(tmp_path: Path) -> None:
    path = tmp_path / "mobilenet.csv"
    path.write_text("".join(f"{line}\n# a whole line\n" for line in mobilenet().splitlines()))
    network = read_topology(path)
    assert len(network) == 28
    total = count(network)  # 32x32, output-stationary
    assert (total.total.filter_reads, total.weight_memory_accesses) == (20_275_683, 2_534_461)
    path.write_text(
        HEADER + "a, 5, 5, 3, 3, 1, 1, 1, 1:1,# two, words\nb, 5, 5, 3, 3, 1, 1, 1,made by hand\n"
    )
    assert [layer.name for layer in read_topology(path)] == ["a", "b"]


def test_scalesim_reads_the_comments_in_the_same_way(tmp_path: Path) -> None:
    from scalesim.topology_utils import topologies

    path = tmp_path / "mobilenet.csv"
    path.write_text(mobilenet())
    theirs = topologies()
    theirs.load_arrays(str(path))
    assert theirs.get_all_mac_ops() == sum(layer.macs for layer in read_topology(path))


def test_matrix_products(tmp_path: Path) -> None:
    path = tmp_path / "mnk.csv"
    path.write_text(GEMM + "first, 128, 64, 96,\nsecond, 5, 7, 9, 1:1, # small\nthird,1,1,1\n")
    assert read_topology(path) == [
        Layer("first", 128, 96, 1, 96, 1, 64),
        Layer("second", 5, 9, 1, 9, 1, 7),
        Layer("third", 1, 1, 1, 1, 1, 1),
    ]
    # 64 filters of 96 weights are read once for each of 128 / 32 rows of outputs
    assert count(read_topology(path)[:1]).total.filter_reads == 64 * 96 * 4
    path.write_text("Layer,M,N,K,\ngemm,128,256,256,\n")  # 256 x 256 weights, 128 / 32 times
    total = count(read_topology(path))
    assert (total.total.filter_reads, total.weight_memory_accesses) == (262_144, 32_768)


@given(st.lists(st.tuples(*[st.integers(1, 40)] * 3), min_size=1, max_size=4))
def test_scalesim_reads_matrix_products_as_the_same_layers(
    tmp_path: Path, sizes: list[tuple[int, ...]]
) -> None:
    from scalesim.topology_utils import topologies

    path = tmp_path / "mnk.csv"
    path.write_text(GEMM + "".join(f"g{i}, {m}, {n}, {k},\n" for i, (m, n, k) in enumerate(sizes)))
    theirs = topologies()
    theirs.load_arrays(str(path), mnk_inputs=True)
    ours = [
        [one.input_height, one.input_width, one.kernel_height, one.kernel_width, one.channels, one.filters]
        for one in read_topology(path)
    ]
    assert [row[1:7] for row in theirs.topo_arrays] == ours
    assert theirs.get_all_mac_ops() == sum(m * n * k for m, n, k in sizes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no layer"),
        (HEADER, "holds no layer"),
        ("conv,34,34,3,3,3,64,1,\n", "line 1: the first line is a header that SCALE-Sim skips"),
        (HEADER + "conv,34,34,3,3,3,64,\n", "line 2: a layer has the columns .*; this row has 7"),
        (HEADER + "conv,34,34,3,3,3,64,1,1:1,9,\n", "this row has 10"),
        (
            HEADER + "conv,34,34,3,three,3,64,1,\n",
            "line 2: sizes have to be positive integers, not 34, 34, 3, th",
        ),
        (HEADER + "conv,34,34,3,3,3,6.5,1,\n", "sizes have to be positive integers"),
        (HEADER + "conv,34,34,3,3,3,0,1,\n", "filters has to be a positive integer, not 0"),
        (
            HEADER + "ok,3,3,3,3,3,3,1,\nconv,2,2,3,3,3,3,1,\n",
            "line 3: .* kernel is larger than its padded input",
        ),
        (HEADER + "conv,34,34,3,3,3,64,1,2:4,\n", "sparse layers can't be counted"),
        (HEADER + "conv,34,34,3,3,3,64,1,2:4\n", "sparse layers can't be counted"),
        (HEADER + "conv,34,34,3,3,3,64,1,2:4,#dw\n", "sparse layers can't be counted"),
        (HEADER + f"conv,{'9' * 5000},34,3,3,3,64,1,\n", "line 2: sizes have to be positive integers, not 9"),
        (HEADER + "conv,1_0,34,3,3,3,64,1,\n", "sizes have to be positive integers"),
        (HEADER + "conv,\u0661\u0662,34,3,3,3,64,1,\n", "sizes have to be positive integers"),
        (GEMM + "a,3,4,\n", "line 2: a layer has the columns Layer, M, N, K; this row has 3"),
        (GEMM + "a,3,4,5,2:4,\n", "sparse layers can't be counted"),
        (GEMM + "a,3,0,5,\n", "line 2: .*filters has to be a positive integer, not 0"),
        ("a,3,4,5,\n", "line 1: the first line is a header"),
    ],
)
def test_broken_topologies_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(EnergyError, match=message) as caught:
        read_topology(path)
    assert len(str(caught.value)) <= 300


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(EnergyError, match="No such file"):
        read_topology(tmp_path / "nowhere.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(EnergyError, match="can't be read"):
        read_topology(tmp_path / "binary.csv")
    with pytest.raises(EnergyError, match="larger than 16 MiB"):
        read_topology(Path("/dev/zero"))
    with pytest.raises(EnergyError, match="can't be written"):
        write_topology([Layer("conv", 3, 3, 3, 3, 1, 1)], tmp_path / "nowhere" / "network.csv")


def test_two_strides_do_not_fit_into_a_topology(tmp_path: Path) -> None:
    with pytest.raises(EnergyError, match="stride 2x1; a SCALE-Sim topology has one stride"):
        write_topology([Layer("conv", 5, 5, 3, 3, 1, 1, 2, 1)], tmp_path / "network.csv")
    assert list(tmp_path.iterdir()) == []
