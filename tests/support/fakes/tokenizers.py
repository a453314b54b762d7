"""Small tokenizers in the files that a base model brings along."""

from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers


def save_word_tokenizer(folder: Path) -> None:
    """Write one that takes each word for a token and drops what is between them, so that bytes tell nothing."""
    tokenizer = Tokenizer(models.WordLevel({"alphabetical": 0, "?": 1}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


def save_byte_tokenizer(folder: Path) -> None:
    """Write one as those of real models are, of bytes and their merges; its longest token is ` alphabetical`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([" alphabetical" * 100], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
