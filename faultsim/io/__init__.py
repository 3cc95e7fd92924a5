"""Files: weights, run directories, where a result came from, and the limits that every reader keeps."""
