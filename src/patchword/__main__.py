"""`python -m patchword` is `patchword`."""

from patchword.cli import main

main()
