"""``python -m csa_deploy``: the command line, where no console script is installed."""

from csa_deploy.cli.main import main

if __name__ == "__main__":
    main()
