"""MotionPrompt (arXiv 2411.15540) in plain PyTorch; nothing here knows ComfyUI."""

__version__ = "0.1.0"
