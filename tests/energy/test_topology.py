"""SCALE-Sim's topology files: what is written reads back to the same counts, here and in SCALE-Sim."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energy import EnergyError, Layer, count, read_topology, write_topology

HEADER = (
    "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n"
)


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
    ],
)
def test_broken_topologies_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.csv"
    path.write_text(text)
    with pytest.raises(EnergyError, match=message):
        read_topology(path)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(EnergyError, match="No such file"):
        read_topology(tmp_path / "nowhere.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(EnergyError, match="can't be read"):
        read_topology(tmp_path / "binary.csv")
    with pytest.raises(EnergyError, match="can't be written"):
        write_topology([Layer("conv", 3, 3, 3, 3, 1, 1)], tmp_path / "nowhere" / "network.csv")


def test_two_strides_do_not_fit_into_a_topology(tmp_path: Path) -> None:
    with pytest.raises(EnergyError, match="stride 2x1; a SCALE-Sim topology has one stride"):
        write_topology([Layer("conv", 5, 5, 3, 3, 1, 1, 2, 1)], tmp_path / "network.csv")
    assert list(tmp_path.iterdir()) == []
