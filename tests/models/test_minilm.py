"""MiniLM's loader on a small model of the same architecture, built here; the published one is 90 MB and not ours."""

import hashlib
import sys
from pathlib import Path

import pytest
import torch

from hildaft.models import minilm
from hildaft.models.selection import EncoderConfig, embed_commands
from hildaft.types import HilDaftError

transformers = pytest.importorskip("transformers", reason="the extra `minilm` is not installed")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "positive", "negative", "x", "y", "direction"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A BERT of two layers with a WordPiece tokenizer, believed by its checksums."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    place = tmp_path / "minilm_here" / "model"
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=160,
    )
    transformers.BertModel(config).save_pretrained(place)
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    # As the published file does: padded to a fixed length, which must not reach the mean.
    tokenizer.enable_padding(length=24)
    tokenizer.save(str(place / "tokenizer.json"))
    sums = {n: hashlib.sha256((place / n).read_bytes()).hexdigest() for n in minilm.CHECKSUMS}
    monkeypatch.setattr(minilm, "CHECKSUMS", sums)
    return place


def test_a_phrase_is_the_mean_over_its_tokens(folder: Path) -> None:
    phrases = ("positive x direction", "Negative Y", "positive x direction")
    table = embed_commands(phrases, EncoderConfig(text=f"minilm:{folder}"))
    assert table.shape == (3, 12)
    torch.testing.assert_close(table.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(table[0], table[2])
    model = transformers.BertModel.from_pretrained(folder).eval()
    ids = torch.tensor([[2, 5, 7, 3]])
    with torch.no_grad():
        mean = model(input_ids=ids).last_hidden_state.mean(1)
    torch.testing.assert_close(table[1], (mean / mean.norm())[0], atol=1e-5, rtol=0)


def test_a_long_phrase_is_cut(folder: Path) -> None:
    table = minilm.embed_phrases_minilm(["x " * 500], str(folder))
    assert table.isfinite().all()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_file_that_was_changed_or_is_missing_is_named(folder: Path, name: str) -> None:
    path = folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(HilDaftError, match=rf"{name}: not the published file"):
        minilm.embed_phrases_minilm(["x"], str(folder))
    path.unlink()
    with pytest.raises(HilDaftError, match=rf"{name}: missing"):
        minilm.embed_phrases_minilm(["x"], str(folder))


def test_the_package_is_data_and_never_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = folder.parent
    (package / "__init__.py").write_text("raise SystemExit('this package was run')")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setattr(minilm, "PACKAGE", package.name)
    assert minilm.embed_phrases_minilm(["positive x"]).shape == (1, 12)
    assert package.name not in sys.modules


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "PACKAGE", "no_such_package")
    with pytest.raises(HilDaftError, match=r"pip install 'hildaft\[minilm\]'"):
        minilm.embed_phrases_minilm(["x"])
