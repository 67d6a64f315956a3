"""MotionPrompt Conditioning: what it outputs, and what other nodes may do to it."""

from __future__ import annotations

import gc

import pytest
import torch

LONG = "a red ball rolling over green grass under a blue sky, " * 12


def test_in_a_stock_sampler_it_is_the_prompt_with_the_init_words(tiny):
    learnable = tiny.prompt("a red ball", token_count=1)
    assert torch.equal(learnable[0][0], tiny.encode("a red ball authentic")[0][0])
    assert torch.equal(learnable[0][1]["pooled_output"], tiny.encode("a red ball authentic")[0][1]["pooled_output"])
    assert torch.equal(tiny.stock(positive=learnable), tiny.stock(positive=tiny.encode("a red ball authentic")))


@pytest.mark.parametrize(
    ("text", "options", "same_as"),
    [
        ("a ball", {"token_count": 1, "placement": "start"}, "authentic a ball"),
        ("a ball", {"token_count": 3, "init_words": "smooth real"}, "a ball smooth real smooth"),
        ("a (ball:1.3)", {"token_count": 1, "init_words": "(real:0.7)"}, "a (ball:1.3) (real:0.7)"),
        ("", {"token_count": 2}, "authentic authentic"),
        (LONG, {"token_count": 1}, LONG + " authentic"),
    ],
)
def test_words_weights_and_placement(tiny, text, options, same_as):
    torch.testing.assert_close(tiny.prompt(text, **options)[0][0], tiny.encode(same_as)[0][0], rtol=0, atol=0)


def test_a_full_chunk_gives_the_tokens_one_of_their_own(tiny):
    full = "ball " * 75
    assert tiny.encode(full)[0][0].shape[1] == 77
    for placement in ("end", "start"):
        learnable = tiny.prompt(full, token_count=4, placement=placement)
        assert learnable[0][0].shape[1] == 2 * 77
        latents, report = tiny.guided(positive=learnable)
        assert report.guided == [0, 1]
        off, _ = tiny.guided(positive=learnable, strength=0.0)
        assert torch.equal(off, tiny.stock(positive=tiny.encode(full)))
        assert not torch.equal(off, latents)


def assert_learns(tiny, learnable, plain, **options):
    """The tokens move, and without guidance it is the stock sampler on the plain conditioning."""
    _, report = tiny.guided(positive=learnable, **options)
    assert report.guided == [0, 1]
    assert all(iteration.grad_norm > 0 for step in report.steps for iteration in step.iterations)
    off, _ = tiny.guided(positive=learnable, strength=0.0, **options)
    assert torch.equal(off, tiny.stock(positive=plain, **options))


def test_long_prompts_learn(tiny):
    assert_learns(tiny, tiny.prompt(LONG), tiny.encode(LONG))


def test_clip_skip(tiny):
    (clip,) = tiny.comfy.run("CLIPSetLastLayer", clip=tiny.clip, stop_at_clip_layer=-2)
    assert_learns(tiny, tiny.prompt("a ball", clip=clip), tiny.encode("a ball", clip=clip))


def test_lora_on_model_and_clip(tiny):
    before = tiny.stock()
    clip, model = tiny.clip.clone(), tiny.model.clone()
    text = "clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight"
    image = "diffusion_model.middle_block.1.proj_in.weight"
    with torch.inference_mode():
        assert clip.add_patches({text: (torch.ones(64, 64) * 0.05,)}, 1.0)
        shape = model.model.state_dict()[image].shape
        assert model.add_patches({image: (torch.ones(shape) * 0.05,)}, 1.0)
    learnable = tiny.prompt("a ball", clip=clip)
    assert_learns(tiny, learnable, tiny.encode("a ball", clip=clip), model=model)
    assert torch.equal(tiny.stock(), before)


def areas(tiny, conditioning):
    (left,) = tiny.comfy.run(
        "ConditioningSetAreaPercentage", conditioning=conditioning, width=0.5, height=1.0, x=0.0, y=0.0, strength=1.0
    )
    return tiny.comfy.run("ConditioningCombine", conditioning_1=left, conditioning_2=tiny.encode("grass"))[0]


def masks(tiny, conditioning):
    mask = torch.zeros(1, 64, 64)
    mask[..., :32] = 1
    (masked,) = tiny.comfy.run(
        "ConditioningSetMask", conditioning=conditioning, mask=mask, strength=0.8, set_cond_area="default"
    )
    return tiny.comfy.run("ConditioningCombine", conditioning_1=masked, conditioning_2=tiny.encode("grass"))[0]


def concatenated(tiny, conditioning):
    return tiny.comfy.run(
        "ConditioningConcat", conditioning_to=conditioning, conditioning_from=tiny.encode("green grass")
    )[0]


def timed(tiny, conditioning):
    (early,) = tiny.comfy.run("ConditioningSetTimestepRange", conditioning=conditioning, start=0.0, end=0.6)
    (late,) = tiny.comfy.run("ConditioningSetTimestepRange", conditioning=tiny.encode("grass"), start=0.6, end=1.0)
    return tiny.comfy.run("ConditioningCombine", conditioning_1=early, conditioning_2=late)[0]


@pytest.mark.parametrize("change", [areas, masks, concatenated, timed])
def test_conditioning_nodes(tiny, change):
    assert_learns(tiny, change(tiny, tiny.learnable), change(tiny, tiny.plain))


def test_two_learnable_prompts_learn_together(tiny):
    def both(first, second):
        return tiny.comfy.run("ConditioningCombine", conditioning_1=first, conditioning_2=second)[0]

    other = tiny.prompt("a cube", init_words="smooth", token_count=1)
    assert_learns(tiny, both(tiny.learnable, other), both(tiny.plain, tiny.encode("a cube")))


def test_inpainting(tiny):
    latent = tiny.latent()
    latent["noise_mask"] = torch.zeros(1, 64, 64)
    latent["noise_mask"][..., 32:] = 1
    assert_learns(tiny, tiny.learnable, tiny.plain, latent_image=latent)


def test_motionprompt_clip_makes_any_text_node_learnable(tiny):
    (clip,) = tiny.comfy.run("MotionPromptCLIP", clip=tiny.clip, token_count=2, init_words="authentic", placement="end")
    assert_learns(tiny, tiny.encode("a ball", clip=clip), tiny.encode("a ball"))
    (skipping,) = tiny.comfy.run("CLIPSetLastLayer", clip=clip, stop_at_clip_layer=-2)
    (skipped,) = tiny.comfy.run("CLIPSetLastLayer", clip=tiny.clip, stop_at_clip_layer=-2)
    assert_learns(tiny, tiny.encode("a ball", clip=skipping), tiny.encode("a ball", clip=skipped))


def concat(comfy, first, second):
    return comfy.run("ConditioningConcat", conditioning_to=first, conditioning_from=second)[0]


def test_every_learnable_prompt_of_a_concatenation_learns(tiny):
    """Concat keeps the first one's entries only; the second one was left behind, with strength 0 not even plain."""
    comfy, second = tiny.comfy, tiny.prompt("green grass", init_words="smooth", token_count=1)
    both = concat(comfy, tiny.learnable, second)
    off, _ = tiny.guided(positive=both, strength=0.0)
    assert torch.equal(off, tiny.stock(positive=concat(comfy, tiny.plain, tiny.encode("green grass"))))
    gradients = tiny.gradients(positive=both, stop=0.25)
    assert len(gradients) == 2 and all(gradient.norm() > 0 for gradient in gradients)


def test_a_learnable_prompt_behind_a_plain_one_learns(tiny):
    behind = concat(tiny.comfy, tiny.encode("green grass"), tiny.learnable)
    off, _ = tiny.guided(positive=behind, strength=0.0)
    assert torch.equal(off, tiny.stock(positive=concat(tiny.comfy, tiny.encode("green grass"), tiny.plain)))
    (gradient,) = tiny.gradients(positive=behind, stop=0.25)
    assert gradient.norm() > 0


def test_both_prompts_learn_that_one_node_put_behind_one_another(tiny):
    """asagi4/comfyui-prompt-control's CAT, where ComfyUI does not keep the CLIP (--cache-none): the second one's tokens
    stayed in the video, with strength 0 as well."""

    def encode(which):
        return concat(tiny.comfy, tiny.encode("a red ball", clip=which), tiny.encode("green grass", clip=which))

    both = encode(learnable_clip(tiny))
    gc.collect()
    off, _ = tiny.guided(positive=both, strength=0.0)
    assert torch.equal(off, tiny.stock(positive=encode(tiny.clip)))


@pytest.mark.parametrize("text", ["a red ball", "ball " * 75])
def test_tokens_that_carry_the_numbers_of_their_words(tiny, monkeypatch, text):
    """asagi4/comfyui-prompt-control's styles of weighting go by words: IndexError."""
    model = tiny.clip.cond_stage_model
    original, words = model.encode_token_weights, set()

    def by_word(tokens):
        words.update(token[2] for section in tokens["l"] for token in section)
        return original(tokens)

    def encode(which):
        with torch.inference_mode():
            return which.encode_from_tokens_scheduled(which.tokenize(text, return_word_ids=True))

    monkeypatch.setattr(model, "encode_token_weights", by_word)
    stock = encode(tiny.clip)
    known = len(words)
    ours = encode(learnable_clip(tiny))
    assert len(words) == known + 1 and torch.equal(ours[0][1]["motionprompt"].plain.cond, stock[0][0])
    (gradient,) = tiny.gradients(positive=ours, stop=0.25)
    assert gradient.norm() > 0


def learnable_clip(tiny):
    return tiny.comfy.run("MotionPromptCLIP", clip=tiny.clip, token_count=1, init_words="authentic", placement="end")[0]


def changed(which, change):
    with torch.inference_mode():
        tokens = which.tokenize("a (red:1.2) ball")
        change(which, tokens)
        return which.encode_from_tokens_scheduled(tokens)


def add_a_chunk(which, tokens):
    more = which.tokenize("green grass")
    for key in tokens:
        tokens[key] = tokens[key] + more[key]


def halve_the_weights(which, tokens):
    for key in tokens:
        tokens[key] = [[(token, 0.5 * weight) for token, weight, *_ in section] for section in tokens[key]]


@pytest.mark.parametrize("change", [add_a_chunk, halve_the_weights])
def test_tokens_that_a_node_changed_are_encoded_as_they_are(tiny, change):
    """SDXL's two texts, BREAK and weights of other packs change the tokens after they were made from a text."""
    stock = changed(tiny.clip, change)
    ours = changed(learnable_clip(tiny), change)
    assert torch.equal(ours[0][1]["motionprompt"].plain.cond, stock[0][0])


def test_prompt_travel_that_was_built_from_bare_embeddings_is_guided(tiny):
    """FizzNodes' schedules ask the CLIP for embeddings alone, blend them, and make the conditioning themselves."""

    def travel(which):
        with torch.inference_mode():
            texts = ("a red ball", "a blue cube")
            (a, pa), (b, pb) = (which.encode_from_tokens(which.tokenize(text), return_pooled=True) for text in texts)
            share = torch.linspace(0, 1, 3).view(-1, 1, 1)
            pooled = pa * (1 - share[:, 0]) + pb * share[:, 0]
            return [[a * (1 - share) + b * share, {"pooled_output": pooled}]]

    clip = learnable_clip(tiny)
    clip.encode_from_tokens(clip.tokenize("another prompt of the same workflow"))
    ours = travel(clip)
    (gradient,) = tiny.gradients(positive=ours, stop=0.25)
    assert gradient.norm() > 0
    off, _ = tiny.guided(positive=ours, strength=0.0)
    plain = tiny.stock(positive=travel(tiny.clip))
    assert (off - plain).abs().max() < 1e-4 * plain.abs().max()
    assert not clip.encoded  # nothing waits for the next node


@pytest.mark.parametrize("text", ["a red ball", "ball " * 75])
def test_zero_out_of_the_learnable_prompt_as_the_negative_one(tiny, text):
    """As today's templates have it for models without a negative prompt; it was refused. The longer prompt's learnable
    tokens have a chunk of their own."""

    def zero(conditioning):
        return tiny.comfy.run("ConditioningZeroOut", conditioning=conditioning)[0]

    learnable, plain = tiny.prompt(text), tiny.encode(text)
    stock = tiny.stock(positive=plain, negative=zero(plain))
    off, _ = tiny.guided(positive=learnable, negative=zero(learnable), strength=0.0)
    assert torch.equal(off, stock)
    guided, report = tiny.guided(positive=learnable, negative=zero(learnable))
    assert report.guided == [0, 1] and not torch.equal(guided, stock)
