"""`python -m patchword` is `patchword`."""

from patchword.cli.app import main

main()
