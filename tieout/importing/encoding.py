"""Which encoding a file is in, where it is not the one that its mapping says."""

import codecs

from charset_normalizer import from_bytes

USUAL = "cp1252"


def likely_encodings(sample: bytes, said: str) -> list[str]:
    """Return what the beginning of a file may be in, the likeliest first; none: it is as `said`, or nobody can tell."""
    try:
        # Not final: the sample may end inside of a character.
        codecs.getincrementaldecoder(said)().decode(sample, final=False)
    except UnicodeDecodeError:
        matches = from_bytes(sample)
        best = matches.best()
        if best is None:
            return []
        # Short texts read equally well in several encodings; people's programs write this one.
        usual = any(USUAL in one.could_be_from_charset and one.chaos <= best.chaos for one in matches)
        return list(dict.fromkeys([*([USUAL] if usual else []), best.encoding]))
    return []
