"""Settings of what runs offline: `TIEOUT_…` variables over the defaults below."""

from shared.settings import SecretFileSettings


class OfflineSettings(SecretFileSettings):
    """How files are read."""

    compiled: bool = True
    """As the matcher's: let C read the plain lines of large files, where it is built."""
