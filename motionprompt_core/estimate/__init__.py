"""Guidance of the estimate: Tweedie's clean video is decoded, steadied along its own optical flow, and handed back.

The paper moves the prompt's tokens. A token reaches little of what a shaking, flickering video needs; this package
moves what the sampler is about to draw towards. It needs only what every sampler has (denoised in, denoised out), so it
works where no gradient passes: quantised, compiled or streamed models, any text encoder.

- `steady`: the closed form. Pictures in, steadier pictures out; no gradient.
- `correct`: x0 + E(steady(D(x0))) - E(D(x0)), and how much of that each sampler carries on.
"""
