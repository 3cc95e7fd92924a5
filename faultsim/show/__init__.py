"""What people look at: plots, and reports as one HTML page."""
