"""Attention with grouped heads: the same values as transformers' own, in every shape it is called with."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.engine
torch = pytest.importorskip("torch")

LENGTH, DIMENSIONS = 37, 16


@pytest.fixture(scope="module")
def attention():
    from quantchat.engine import attention, quiet

    quiet.set_environment()
    return attention


class Layer(torch.nn.Module):
    """What transformers' function asks of a layer."""

    is_causal = True

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.num_key_value_groups = groups


def states(heads: int, key_heads: int, tokens: int, dtype, batch: int = 1):
    torch.manual_seed(heads + tokens)
    query = torch.randn(batch, heads, tokens, DIMENSIONS).to(dtype)
    # A slice of a longer buffer, as the growing cache hands it over.
    room = torch.randn(2, batch, key_heads, LENGTH + 20, DIMENSIONS).to(dtype)
    return query, room[0, :, :, :LENGTH], room[1, :, :, :LENGTH]


def causal(batch: int, tokens: int):
    """The last tokens see all before them; the second row of a batch is padded on the left."""
    mask = torch.ones(tokens, LENGTH, dtype=torch.bool).tril(LENGTH - tokens).repeat(batch, 1, 1, 1)
    mask[1:, :, :, :5] = False
    return mask


@pytest.mark.parametrize(("heads", "key_heads"), [(9, 3), (4, 2), (8, 1)])
@pytest.mark.parametrize("tokens", [1, 2, 5, 11, 16, 17, 33])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_the_values_are_those_of_transformers(attention, heads, key_heads, tokens, batch, kind) -> None:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    query, key, value = states(heads, key_heads, tokens, torch.float64, batch)
    mask = causal(batch, tokens)
    if kind == "float":
        mask = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, torch.finfo(torch.float64).min)
    layer = Layer(heads // key_heads)
    ours, _ = attention.attend(layer, query, key, value, mask, scaling=0.3)
    theirs, _ = sdpa_attention_forward(layer, query, key, value, mask, scaling=0.3)
    assert ours.shape == (batch, tokens, heads, DIMENSIONS)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_one_token_without_a_mask_sees_everything(attention, dtype) -> None:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    query, key, value = states(9, 3, 1, dtype)
    ours, _ = attention.attend(Layer(3), query, key, value, None)
    theirs, _ = sdpa_attention_forward(Layer(3), query, key, value, None)
    torch.testing.assert_close(ours, theirs, atol=4e-3, rtol=4e-3)


@pytest.mark.parametrize(
    ("heads", "tokens", "mask", "more"),
    [
        (3, 1, False, {}),
        (9, 4, False, {}),
        (9, 1, False, {"dropout": 0.5}),
        (9, 1, False, {"position_bias": torch.zeros(1, 9, 1, LENGTH)}),
    ],
    ids=["ungrouped", "causal from the first", "dropout", "position bias"],
)
def test_every_other_call_goes_on_to_transformers(attention, monkeypatch, heads, tokens, mask, more) -> None:
    calls = []
    monkeypatch.setattr(attention, "sdpa_attention_forward", lambda *given, **named: calls.append((given, named)))
    query, key, value = states(heads, 3, tokens, torch.float32)
    attention.attend(Layer(heads // 3), query, key, value, causal(1, tokens) if mask else None, is_causal=True, **more)
    ((_, named),) = calls
    assert named["is_causal"] is True
    assert named["dropout"] == more.get("dropout", 0.0)


def test_decoding_takes_it_and_the_logits_stay(attention, monkeypatch) -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    from engine import zoo

    model = zoo.make("llama")
    ids = torch.tensor([[5, 9, 77, 3, 60, 8, 2]])
    folded = []
    own = attention._folded
    monkeypatch.setattr(attention, "_folded", lambda *given: folded.append(given) or own(*given))

    def run():
        with torch.inference_mode():
            cache = model(input_ids=ids[:, :4], use_cache=True).past_key_values
            return [
                model(input_ids=ids[:, start:end], past_key_values=cache, use_cache=True).logits[0, -1]
                for start, end in ((4, 5), (5, 7))
            ]

    monkeypatch.setattr(ALL_ATTENTION_FUNCTIONS, "_local_mapping", {})
    plain = run()
    assert not folded
    attention.install()
    for ours, theirs in zip(run(), plain, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert len(folded) == 2 * model.config.num_hidden_layers
