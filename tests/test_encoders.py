"""Pre-trained encoders on the frames that are there: the same alone and in any batch."""

from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import TINY
from numpy.typing import NDArray
from scipy.signal import firwin
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from sercli.errors import ModelError
from sercli.neural import whisper
from sercli.neural.batching import pad
from sercli.neural.devices import computing
from sercli.neural.encoders import WhisperStates, create_encoder
from sercli.neural.mel import LEVEL, KaldiMel, LowPass, WhisperMel
from sercli.neural.pooling import statistics
from sercli.neural.speech_encoder import ARCHITECTURES, WAVEFORM
from sercli.neural.whisper import WhisperAttention, WhisperSettings

LENGTHS = (16_000, 9_431, 1_600, 24_007)


def waveforms() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.1, length).astype(np.float32) for length in LENGTHS]


def encoder(kind: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    return create_encoder({"model_type": kind, **TINY[kind], **settings}).eval()


def encode(net: Any, *received: NDArray[np.float32]) -> list[torch.Tensor]:
    """States of each waveform of a batch, shape (n_states, n_frames, n_channels)."""
    states, spans = net(*pad(received))
    return [torch.stack([state[span] for state in states]) for span in spans]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(kind, {}) for kind in ARCHITECTURES]
    + [(kind, {"feat_extract_norm": "layer"}) for kind in ("wav2vec2", "hubert", "wavlm")]
    + [("wav2vec2", {"do_stable_layer_norm": True})],
)
@torch.inference_mode()
def test_states_are_the_same_alone_and_in_any_batch(kind: str, settings: dict[str, Any]) -> None:
    net = encoder(kind, **settings)
    together = encode(net, *waveforms())
    for waveform, found in zip(waveforms(), together, strict=True):
        (alone,) = encode(net, waveform)
        n_states, n_frames, n_channels = alone.shape
        assert n_states == net.n_states == 3
        assert n_channels == net.n_channels == 16
        torch.testing.assert_close(found, alone, atol=1e-4, rtol=1e-4)
        assert n_frames == 1 or alone.std(dim=1).min() > 1e-4  # frames differ


@pytest.mark.parametrize(
    ("precision", "tiles", "n_rows"),
    [
        (torch.float32, True, 164),
        # A CPU prepares products for each shape: it is rounded up to one of few.
        (torch.bfloat16, False, 192),
        # In tiles, fewer rows per thread would be summed in another order.
        (torch.bfloat16, True, 1536),
    ],
)
@torch.inference_mode()
def test_whisper_never_computes_padding(
    precision: torch.dtype, tiles: bool, n_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whisper, "has_amx", lambda: tiles)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    net = encoder("whisper")
    batch = [*waveforms(), np.full(300, 0.1, np.float32)]  # shorter than a window
    counts = [100, 58, 10, 150, 1]  # frames of 10 ms; of 20 ms: half of them, rounded up
    with computing(torch.device("cpu"), precision):
        states, spans = net(*pad(batch))
    lengths = [span.stop - span.start for span in spans]
    assert lengths == [50, 29, 5, 75, 1]
    assert [(count + 1) // 2 for count in counts] == lengths
    starts = [span.start for span in spans]
    assert starts == [0, 51, 81, 87, 163]  # one row apart
    assert {len(state) for state in states} == {n_rows}
    with torch.enable_grad(), computing(torch.device("cpu"), precision):
        states, _ = net(*pad(batch))
    assert {len(state) for state in states} == {min(n_rows, 192)}  # in training
    assert all(bool(state.isfinite().all()) for state in states)


def test_statistics_are_of_the_segment_alone() -> None:
    frames = torch.from_numpy(np.random.default_rng(0).normal(3, 2, (80, 5))).float()
    frames[40], frames[65:] = 1e6, torch.nan  # what is between them may be anything
    spans = [slice(0, 40), slice(41, 65)]
    for row, span in zip(statistics(frames, spans), spans, strict=True):
        inside = frames[span].numpy()
        np.testing.assert_allclose(row[:5], inside.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(row[5:], inside.std(axis=0), rtol=1e-4)


@pytest.mark.parametrize("kind", ARCHITECTURES)
@torch.inference_mode()
def test_gain_does_not_matter(kind: str) -> None:
    net = encoder(kind)
    louder = encode(net, *(8 * waveform for waveform in waveforms()))
    torch.testing.assert_close(louder, encode(net, *waveforms()), atol=1e-3, rtol=1e-3)


@torch.inference_mode()
def test_whisper_is_that_of_transformers_on_30_seconds() -> None:
    net = encoder("whisper")
    assert isinstance(net, WhisperStates)
    plain: Any = WhisperEncoder(WhisperConfig(**TINY["whisper"]))
    plain.eval()
    plain.load_state_dict(net.model.state_dict())
    waveform = np.random.default_rng(1).normal(0, 0.1, 480_000).astype(np.float32)
    (states,) = encode(net, waveform)
    frames, _ = net.front_end(*pad([waveform]))
    expected = plain(frames, output_hidden_states=True)
    torch.testing.assert_close(states[-1], expected.last_hidden_state[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        states[:-1], torch.cat(expected.hidden_states[:-1]), atol=1e-5, rtol=1e-5
    )


def test_whisper_drops_what_its_settings_say_in_training_only() -> None:
    batch = pad(waveforms())
    for name in ("dropout", "attention_dropout", "activation_dropout"):
        net = encoder("whisper", **{name: 0.5})
        kept = net(*batch)[0][-1]
        torch.testing.assert_close(net(*batch)[0][-1], kept)
        assert not net.train()(*batch)[0][-1].allclose(kept, atol=1e-2)


@pytest.mark.parametrize(
    "settings",
    [
        {"encoder_attention_heads": 3},
        {"encoder_attention_heads": 0},
        {"d_model": "16"},
        {"encoder_layers": -1},
        {"activation_function": "relu"},
    ],
)
def test_settings_that_are_not_those_of_whisper(settings: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=f"{next(iter(settings))}.*; expected"):
        encoder("whisper", **settings)


@pytest.mark.parametrize("kind", ["wav2vec2", "wavlm", "data2vec-audio"])
@torch.inference_mode()
def test_waveform_encoders_are_those_of_transformers(kind: str) -> None:
    net = encoder(kind)
    waveform = waveforms()[0]
    states, _ = net(*pad([waveform]))
    given = torch.from_numpy((waveform - waveform.mean()) / waveform.std())[None]
    plain = create_plain(kind, net)
    torch.testing.assert_close(states[-1], plain(given).last_hidden_state[0], atol=1e-4, rtol=1e-4)


def test_batch_norm_of_hubert_knows_nothing_of_batches() -> None:
    dropouts = ("hidden", "attention", "activation", "feat_proj")
    told = {f"{name}_dropout": 0.0 for name in dropouts}
    net = encoder("hubert", conv_pos_batch_norm=True, **told)
    norm = net.model.encoder.pos_conv_embed.batch_norm
    with torch.no_grad():
        norm.running_mean.normal_()
    before = norm.running_mean.clone()
    with torch.inference_mode():
        together = encode(net.train(), *waveforms())
        assert norm.running_mean.equal(before)
        net.eval()
        for waveform, found in zip(waveforms(), together, strict=True):
            (alone,) = encode(net, waveform)
            torch.testing.assert_close(found, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", WAVEFORM)
def test_no_gradients_through_frozen_layers(kind: str) -> None:
    net = encoder(kind).train().requires_grad_(False)
    net.layers[-1].requires_grad_(True)
    states, _ = net(*pad(waveforms()[:2]))
    assert [state.requires_grad for state in states] == [False, False, True]


def create_plain(kind: str, net: Any) -> Any:
    """Return the encoder as `transformers` has it, with the same weights."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(kind, **TINY[kind])
    plain = AutoModel.from_config(config).eval()  # type: ignore[no-untyped-call]
    plain.load_state_dict(net.model.state_dict())
    return plain


def test_whisper_frames_are_those_of_transformers() -> None:
    rng = np.random.default_rng(2)
    waveform = rng.normal(0, 0.1, 16_000).astype(np.float32)
    waveform *= LEVEL / np.sqrt(np.square(waveform).mean())
    extractor = WhisperFeatureExtractor(feature_size=80)  # type: ignore[no-untyped-call]
    expected = extractor(waveform, sampling_rate=16_000, return_tensors="np").input_features[0]
    frames, mask = WhisperMel(80)(*pad([waveform]))
    assert frames.shape == (1, 80, 100)
    assert mask.all()
    # But for the first frames, where theirs are mirrored, and the last, where ours end.
    np.testing.assert_allclose(frames[0, :, 2:98].numpy(), expected[:, 2:98], atol=2e-3)


def tone(frequency: float, n_samples: int = 16_000) -> NDArray[np.float32]:
    wave: NDArray[np.float64] = np.sin(2 * np.pi * frequency / 16_000 * np.arange(n_samples))
    return wave.astype(np.float32)


def test_low_pass_is_a_windowed_sinc() -> None:
    expected = firwin(401, 3_900, window=("kaiser", 7.86), fs=16_000)
    np.testing.assert_allclose(LowPass(4_000).taps.numpy(), expected, atol=1e-7)


@torch.inference_mode()
def test_low_pass_keeps_what_is_below_and_its_time() -> None:
    low, high = tone(3_700), tone(4_050)
    filtered = LowPass(4_000)(*pad([low + high, (low + high)[:9_000]])).numpy()
    np.testing.assert_allclose(filtered[0, 400:-400], low[400:-400], atol=1e-3)
    np.testing.assert_allclose(filtered[1, 400:8_600], low[400:8_600], atol=1e-3)
    assert not filtered[1, 9_000:].any()


@torch.inference_mode()
def test_whisper_frames_know_nothing_above_the_limit() -> None:
    front_end = WhisperMel(80, band_limit=4_000)
    rng = np.random.default_rng(3)
    speech = np.sum([rng.normal() * tone(f) for f in range(100, 3_900, 100)], axis=0)
    # Four times as loud in sum, and of all frequencies from just above the limit.
    noise = np.fft.irfft(np.fft.rfft(rng.normal(size=16_000)) * (np.arange(8_001) > 4_000))
    noise *= 4 * speech.std() / noise.std()
    frames, _ = front_end(*pad([speech, speech + noise.astype(np.float32)]))
    np.testing.assert_allclose(frames[1, :, 3:-3], frames[0, :, 3:-3], atol=0.01)


def test_kaldi_frames_have_at_least_one_patch() -> None:
    frames, counts = KaldiMel(36, mean=-4.0, deviation=2.0)(*pad(waveforms()), 16)
    assert counts.tolist() == [98, 57, 16, 148]
    assert frames.shape == (4, 148, 36)
    # After its end a segment has the level of digital silence as it was standardised in training.
    torch.testing.assert_close(frames[2, 8:], torch.full((140, 36), 1.0))


def test_unknown_architectures_and_settings_are_refused() -> None:
    with pytest.raises(ModelError, match="architecture is 'bert'; expected one of whisper"):
        create_encoder({"model_type": "bert"})
    with pytest.raises(ModelError, match="settings are invalid"):
        create_encoder({"model_type": "wav2vec2", **TINY["wav2vec2"], "hidden_act": "none-such"})


@torch.inference_mode()
def test_whisper_has_no_more_than_its_positions() -> None:
    from sercli.errors import ConfigError

    with pytest.raises(ConfigError, match=r"a segment lasts 31\.00 s; expected at most 30 s"):
        encoder("whisper")(*pad([np.ones(496_000, np.float32)]))


def test_low_pass_is_that_of_a_waveform_alone() -> None:
    rng = np.random.default_rng(4)
    # Shorter than the filter, as long as what a block adds, and longer than blocks.
    some = [rng.normal(size=n).astype(np.float32) for n in (150, 1_648, 1_649, 9_000)]
    taps = firwin(401, 3_900, window=("kaiser", 7.86), fs=16_000)
    together = LowPass(4_000)(*pad(some))
    for waveform, found in zip(some, together, strict=True):
        (alone,) = LowPass(4_000)(*pad([waveform]))
        assert torch.equal(found[: len(waveform)], alone)
        expected = np.convolve(waveform, taps)[200 : 200 + len(waveform)]
        np.testing.assert_allclose(alone, expected, atol=1e-4)
        assert not found[len(waveform) :].any()


@pytest.fixture
def attention() -> WhisperAttention:
    torch.manual_seed(0)
    return WhisperAttention(WhisperSettings(d_model=64, encoder_attention_heads=4)).eval()


# Of a segment and one row that is of none, another segment, and as many as are rounded up.
SPANS = [slice(0, 30), slice(31, 48)]


@pytest.mark.parametrize("queries", [16, 256])
@torch.inference_mode()
def test_attention_in_bf16_is_close_and_sees_its_segment_alone(
    queries: int, attention: WhisperAttention, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whisper, "QUERIES", queries)
    rows = torch.randn(64, 64)
    expected = attention(rows, SPANS)
    with computing(torch.device("cpu"), torch.bfloat16):
        found = attention(rows, SPANS)
        rows[30], rows[48:] = 1e4, -1e4
        others = attention(rows, SPANS)
    assert found.dtype == torch.bfloat16
    for span in SPANS:
        alone = attention(rows[span], [slice(0, span.stop - span.start)])
        torch.testing.assert_close(expected[span], alone)
        torch.testing.assert_close(found[span].float(), alone, atol=0.02, rtol=0.02)
        assert torch.equal(others[span], found[span])


@torch.inference_mode()
def test_attention_side_by_side_is_that_one_by_one() -> None:
    query, key, value = torch.randn(3, 4, 64, 16, generator=torch.Generator().manual_seed(0))
    for spans in (SPANS, [slice(0, 20), slice(21, 41)]):
        one_by_one = whisper._attend_one_by_one(query, key, value, spans, 0.0)
        at_once = whisper._attend_at_once(query, key, value, spans, 0.0)
        torch.testing.assert_close(at_once, one_by_one)
        assert not one_by_one[spans[0].stop].any()


@torch.inference_mode()
def test_whisper_frames_know_nothing_of_what_is_after_their_last() -> None:
    # A click in the last samples, of which no frame of the segment is the middle.
    quiet = 1e-4 * tone(300, 16_159)
    quiet[-1] = 1.0
    alone, _ = WhisperMel(80)(*pad([quiet]))
    padded, _ = WhisperMel(80)(*pad([quiet, tone(300, 32_000)]))
    np.testing.assert_allclose(padded[0, :, :100], alone[0], atol=1e-5)
