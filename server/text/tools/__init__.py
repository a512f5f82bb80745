"""How models write calls of functions: one format a file, and the table of them."""
