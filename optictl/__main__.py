"""`python -m optictl`"""

from optictl.cli import main

main()
