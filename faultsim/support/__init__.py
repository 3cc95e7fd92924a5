"""What every part uses and no part is about: extras, whole numbers, intervals, tables for a terminal."""
