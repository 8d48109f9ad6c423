"""Which encoding a file is in, where it is not the one that its mapping says."""

import codecs

from charset_normalizer import from_bytes

USUAL = "cp1252"


def likely_encoding(sample: bytes, said: str) -> str | None:
    """Return what the beginning of a file reads as; None: as `said`, or nobody can tell."""
    try:
        # Not final: the sample may end inside of a character.
        codecs.getincrementaldecoder(said)().decode(sample, final=False)
    except UnicodeDecodeError:
        best = from_bytes(sample).best()
        if best is None:
            return None
        # Several encodings may give the same text; people's programs write this one.
        return USUAL if USUAL in best.could_be_from_charset else best.encoding
    return None
