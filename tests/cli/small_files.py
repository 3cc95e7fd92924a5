"""Small files and options that many tests of the commands use."""

CURVE = "voltage,bit_error_rate,energy_per_access\n1.0,0,1\n0.9,0.001,0.8\n0.8,0.05,0.6\n"
PICOJOULES = "voltage,bit_error_rate,energy_per_access_pj\n1.1,0,3\n1.0,0,2.5\n0.9,0.001,2\n0.8,0.05,1.5\n"
LOG = '{"epoch": 1, "loss": 1.0, "accuracy": 0.5, "test_accuracy": 0.5, "seconds": 1.0}\n'
SMALL = ("--images", 20, "--chips", 2, "--device", "cpu")
