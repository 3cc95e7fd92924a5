"""Rates and energies as people read them."""


def format_percent(rate: float) -> str:
    """Format a fraction as percent with three digits: 0.000225 is "0.0225 %"."""
    return f"{100 * rate:.3g} %"


def format_joules(picojoules: float) -> str:
    """Format an energy in the unit that suits it, with four digits: 15872 is "15.87 nJ"."""
    for unit in ("pJ", "nJ", "µJ"):
        if picojoules < 1000:
            return f"{picojoules:.4g} {unit}"
        picojoules /= 1000
    return f"{picojoules:.4g} mJ"
