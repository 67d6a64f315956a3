"""What a user runs on files, without ComfyUI: `python -m motionprompt_tools COMMAND`; `--help` lists the commands.

Beside the core and above it: reading the command line, training on folders, measuring and converting files, and the
sprite world whose clips are the demo model's real side.
"""
