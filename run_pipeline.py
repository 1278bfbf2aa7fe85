"""Entry point of the command line: `python run_pipeline.py --help`."""

from maskstream.pipeline.cli import main

if __name__ == "__main__":
    main()
