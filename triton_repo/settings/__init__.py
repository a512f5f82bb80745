"""What a repository can be told: every setting as data, its type, its range and its rules."""
