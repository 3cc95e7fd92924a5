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


def format_duration(seconds: float) -> str:
    """Format seconds: "40 s", "25 min", "3.5 h", "12 days"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"
