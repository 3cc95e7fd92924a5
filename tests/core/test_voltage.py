"""Supply voltage, bit error rate and energy: the paper's anchors, curves of one's own, and what holds for any curve."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from faultsim.errors import FaultsimError
from faultsim.voltage import VoltageCurve

DEFAULT = VoltageCurve.default()


@st.composite
def curves(draw) -> VoltageCurve:
    """Any monotone curve, with and without error-free points and plateaus."""
    n = draw(st.integers(2, 8))
    voltages = draw(st.lists(st.integers(300, 1500), min_size=n, max_size=n, unique=True).map(sorted))
    exponents = st.one_of(st.just(math.inf), st.floats(0.31, 9.0))
    rates = draw(st.lists(exponents.map(lambda x: 10.0**-x), min_size=n, max_size=n).map(sorted))
    energies = draw(st.lists(st.floats(0.01, 100), min_size=n, max_size=n).map(sorted))
    return VoltageCurve("any", tuple(v / 1000 for v in voltages[::-1]), tuple(rates), tuple(energies[::-1]))


def inside(curve: VoltageCurve, share: float) -> float:
    return min(max(curve.v_low + share * (curve.v_high - curve.v_low), curve.v_low), curve.v_high)


SHARE = st.floats(0, 1)


# -- the paper's memory --------------------------------------------------------------------------------------


def test_anchors_of_the_paper():
    assert DEFAULT.bit_error_rate(0.83) == 1e-2
    assert DEFAULT.bit_error_rate(1.0) == 0.0
    assert DEFAULT.bit_error_rate(1.2) == 0.0
    assert DEFAULT.bit_error_rate(math.nextafter(1.0, 0.0)) == 1e-6
    assert DEFAULT.energy_per_access(0.83) == pytest.approx(0.694, abs=1e-12)
    assert DEFAULT.energy_per_access(1.0) == 1.0
    assert DEFAULT.voltage(1e-2) == 0.83
    assert DEFAULT.voltage(0.0) == DEFAULT.v_min == 1.0


def test_half_way_in_voltage_is_half_way_in_decades():
    assert DEFAULT.bit_error_rate(0.915) == pytest.approx(1e-4, rel=1e-9)
    assert DEFAULT.voltage(1e-4) == pytest.approx(0.915, rel=1e-12)


def test_rates_are_clipped_where_a_cell_reads_at_random():
    lowest = 1 - 0.17 * math.log(0.5e6) / math.log(1e4)  # by hand: the line through the anchors, at 0.5
    assert DEFAULT.voltage(0.5) == pytest.approx(lowest, rel=1e-12)
    assert DEFAULT.bit_error_rate(lowest - 1e-3) == 0.5
    assert DEFAULT.bit_error_rate(0.5) == 0.5
    assert DEFAULT.bit_error_rate(lowest + 1e-3) < 0.5


@given(st.floats(0.5, 1.5))
def test_energy_follows_a_power_close_to_the_square(v):
    assert DEFAULT.energy_per_access(v) == pytest.approx(v ** (math.log(0.694) / math.log(0.83)), rel=1e-12)


@pytest.mark.parametrize("voltage", [0.499, 1.501, 0.0, -1.0, math.nan, math.inf])
def test_beyond_the_curve_nothing_is_assumed(voltage):
    for question in (DEFAULT.bit_error_rate, DEFAULT.energy_per_access):
        with pytest.raises(FaultsimError, match=r"outside the curve '14nm', which covers 0\.5 to 1\.5"):
            question(voltage)


@pytest.mark.parametrize("rate", [-0.1, 0.6, 1.1, math.nan, "many"])
def test_rates_that_do_not_occur(rate):
    with pytest.raises(FaultsimError):
        DEFAULT.voltage(rate)


# -- any memory ----------------------------------------------------------------------------------------------


@given(curves(), SHARE, SHARE)
def test_lower_voltages_never_have_fewer_errors_nor_cost_more(curve, a, b):
    low, high = sorted((inside(curve, a), inside(curve, b)))
    assert curve.bit_error_rate(low) >= curve.bit_error_rate(high)
    assert curve.energy_per_access(low) <= curve.energy_per_access(high) * (1 + 1e-12)


@given(curves())
def test_a_curve_goes_through_its_points(curve):
    at_v_min = dict(zip(curve.voltages, curve.energies, strict=True))[curve.v_min]
    for v, rate, energy in zip(curve.voltages, curve.bit_error_rates, curve.energies, strict=True):
        assert curve.bit_error_rate(v) == rate
        assert curve.energy_per_access(v) == pytest.approx(energy / at_v_min, rel=1e-12)


@given(curves(), SHARE)
def test_both_ways(curve, share):
    rate = curve.bit_error_rate(inside(curve, share))
    assume(rate == 0.0 or rate >= curve.bit_error_rates[0])
    voltage = curve.voltage(rate)
    if voltage == curve.v_min:  # error-free itself: errors begin below it
        return
    assert curve.bit_error_rate(voltage) == pytest.approx(rate, rel=1e-6)
    if rate != min(r for r in curve.bit_error_rates if r > 0):  # which may go on to v_min, where it ends
        assert voltage >= inside(curve, share) * (1 - 1e-9)  # the highest with that rate


@given(SHARE)
def test_both_ways_on_the_default_curve(share):
    voltage = DEFAULT.voltage(0.5) * share + math.nextafter(1.0, 0.0) * (1 - share)
    assert DEFAULT.voltage(DEFAULT.bit_error_rate(voltage)) == pytest.approx(voltage, rel=1e-12)


def test_a_plateau_is_reached_where_it_begins():
    curve = VoltageCurve("plateau", (1.0, 0.9, 0.8, 0.7), (0.0, 0.01, 0.01, 0.1), (4.0, 3.0, 2.0, 1.0))
    assert curve.voltage(0.01) == 0.9
    assert curve.bit_error_rate(0.85) == 0.01
    assert curve.bit_error_rate(0.95) == 0.01  # no slope to continue


def test_between_the_last_error_free_point_and_the_first_error_the_slope_goes_on():
    curve = VoltageCurve("steep", (1.0, 0.9, 0.8), (0.0, 1e-4, 1e-2), (3.0, 2.0, 1.0))
    assert curve.bit_error_rate(0.95) == pytest.approx(1e-5)
    assert curve.voltage(1e-5) == pytest.approx(0.95)
    assert curve.voltage(1e-9) == 1.0  # the rate that is only jumped over


def test_energies_lie_on_the_square_law_between_points():
    curve = VoltageCurve("square", (2.0, 1.0), (0.0, 0.1), (4.0, 1.0))
    assert curve.energy_per_access(1.5) == pytest.approx(1.5**2 / 4)


def test_without_an_error_free_point_the_highest_voltage_is_v_min():
    curve = VoltageCurve("faulty", (1.0, 0.9), (1e-3, 1e-2), (2.0, 1.0))
    assert (curve.v_min, curve.bit_error_rate(1.0)) == (1.0, 1e-3)
    with pytest.raises(FaultsimError, match=r"go from 0\.001 to 0\.01"):
        curve.voltage(1e-4)


# -- files ---------------------------------------------------------------------------------------------------

HEADER = "voltage,bit_error_rate,energy_per_access\n"


@given(curve=curves())
def test_csv_round_trip_is_exact(curve, tmp_path):
    path = tmp_path / "any"
    curve.to_csv(path)
    assert VoltageCurve.from_csv(path) == curve


def test_csv_may_rise_and_hold_comments_blanks_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "mine.csv"
    text = "# lab 3\n\n" + HEADER + "0.5, 0.02 ,2\n # gap\n0.6,0.001,3\n\n0.7,0,4\n"
    path.write_text(text, encoding="utf-8-sig")
    curve = VoltageCurve.from_csv(path)
    assert curve == VoltageCurve("mine.csv", (0.7, 0.6, 0.5), (0.0, 0.001, 0.02), (4.0, 3.0, 2.0))
    assert curve.v_min == 0.7


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("# nothing\n", "there is no header voltage,"),
        (HEADER, "at least two points"),
        (HEADER + "1,0,1\n", "at least two points"),
        ("voltage,ber,energy\n1,0,1\n", "line 1: the header must be"),
        ("1,0,1\n0.9,0.1,0.8\n", "line 1: the header must be"),
        (HEADER + "# x\n\n1,0,1\n0.9,high,0.8\n", "line 5: three numbers expected"),
        (HEADER + "1,0\n0.9,0.1,0.8\n", "line 2: three numbers expected"),
        (HEADER + "1,0,1,1\n0.9,0.1,0.8\n", "line 2: three numbers expected"),
        (HEADER + "1,0,1\n0.9,nan,0.8\n", "finite"),
        (HEADER + "inf,0,1\n0.9,0.1,0.8\n", "finite"),
        (HEADER + "1,0,1\n-0.9,0.1,0.8\n", "above 0"),
        (HEADER + "1e200,0,1\n0.9,0.1,0.8\n", "at most 1e+06"),
        (HEADER + "1,0,1\n0.9,0.1,0\n", "above 0"),
        (HEADER + "1,0,1\n0.9,-0.1,0.8\n", "outside [0, 0.5]"),
        (HEADER + "1,0,1\n0.9,1.0,0.8\n", "outside [0, 0.5]"),
        (HEADER + "1,0,1\n0.8,0.1,0.7\n0.9,0.05,0.8\n", "0.8 is followed by 0.9"),
        (HEADER + "1,0,1\n0.9,0.1,0.8\n0.9,0.2,0.7\n", "without repeats"),
        (HEADER + "1,0.1,1\n0.9,0.01,0.8\n", "must not fall with the voltage"),
        (HEADER + "1,0,1\n0.9,0.1,1.1\n", "must not rise as the voltage falls"),
        (HEADER + "1,0,1e308\n0.9,0.1,1e-308\n", "energy 1e-30 to 1e+30"),
        (HEADER + "1,0,1\n0.9,0.1,1e-308\n", "energy 1e-30 to 1e+30"),
        (HEADER + "1,0,1\n1e-200,0.1,0.8\n", "voltage 1e-06 to at most 1e+06"),
        (HEADER + "1,0,1\n0.9," + "0" * 5000 + ",0.8\n", "line 3: three numbers expected"),
        (HEADER + "1,0,1\n0_9,0.1,0.8\n", "line 3: three numbers expected"),
        (HEADER + "0.9,0.1,1\n" * 1_000_000, "line 10002: more than 10,000 points"),
    ],
)
def test_bad_csv_says_what_is_wrong(tmp_path, text, complaint):
    path = tmp_path / "mine.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FaultsimError, match=r"voltage curve .*mine\.csv") as error:
        VoltageCurve.from_csv(path)
    assert complaint in str(error.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x00" * 100, b"PK\x03\x04" + bytes(range(256))])
def test_foreign_files(tmp_path, content):
    path = tmp_path / "mine.csv"
    path.write_bytes(content)
    with pytest.raises(FaultsimError, match=r"mine\.csv"):
        VoltageCurve.from_csv(path)


def test_endless_and_missing_files(tmp_path):
    with pytest.raises(FaultsimError, match="too large"):
        VoltageCurve.from_csv("/dev/zero")
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(FaultsimError, match="cannot be read"):
            VoltageCurve.from_csv(path)


def test_points_without_partners():
    with pytest.raises(FaultsimError, match="at least two points"):
        VoltageCurve("odd", (1.0, 0.9), (0.0,), (1.0, 0.9))


def test_rows_and_a_table_at_chosen_voltages(tmp_path):
    own = VoltageCurve("mine", (0.8, 0.7, 0.6), (0.0, 0.01, 0.1), (4.0, 3.0, 2.0), picojoules=True)
    first, last = own.rows([0.6, 0.8])
    assert first == {
        "voltage": 0.6,
        "bit_error_rate": 0.1,
        "energy_per_access": 0.5,
        "energy_per_access_pj": 2.0,
    }
    assert (last["bit_error_rate"], last["energy_per_access_pj"]) == (0.0, 4.0)
    own.to_csv(tmp_path / "two.csv", [0.6, 0.8])
    again = VoltageCurve.from_csv(tmp_path / "two.csv")
    assert (again.voltages, again.energies, again.picojoules) == ((0.8, 0.6), (4.0, 2.0), True)
    assert set(VoltageCurve.default().rows([0.83])[0]) == {"voltage", "bit_error_rate", "energy_per_access"}
    with pytest.raises(FaultsimError, match="outside the curve"):
        own.rows([0.9])
