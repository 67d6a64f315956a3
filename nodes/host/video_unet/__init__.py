"""The UNets of LaVie, VideoCrafter2 and DynamiCrafter as native ComfyUI models: frames are the batch, (B * F, C, h, w).

`layers.py` and `unet.py` are the network, `resampler.py` makes DynamiCrafter's image tokens, `sampling.py` is the noise
schedule, `model.py` what ComfyUI holds, `contents.py` and `loading.py` read files, `checks.py` refuses before sampling.
"""
