"""Studies of a subject on chips: how sweeps, comparisons and vulnerabilities are planned, run, kept and resumed."""
