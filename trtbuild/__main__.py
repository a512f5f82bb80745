"""`python -m trtbuild`."""

from trtbuild.cli import main

main()
