"""Settings of the exchange snapshots, in the variables that operators of the bots know."""

from pathlib import Path
from typing import Literal

from pydantic import AnyHttpUrl, Field, field_validator
from pydantic_settings import SettingsConfigDict

from shared.settings import SecretFileSettings

Mode = Literal["off", "bitget_ccxt_private"]
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class ExchangeSettings(SecretFileSettings):
    """`EXCHANGE_SNAPSHOT_MODE`, `EXCHANGE_ACCOUNT_MAP_PATH` and so on."""

    model_config = SettingsConfigDict(env_prefix="EXCHANGE_")

    snapshot_mode: Mode = "off"
    """`off`: nobody is asked, and every bot stands in the snapshot as `disabled`."""
    account_map_path: Path = Path("config/exchange_account_map.json")
    snapshot_out_path: Path = Path("reports/exchange_snapshots/latest.json")
    snapshot_interval_sec: float = Field(default=120, ge=1, le=86_400)
    """From the beginning of one look to the beginning of the next."""
    snapshot_assets: str = Field(default="BTC,USDT", pattern=r"^[A-Za-z0-9]{1,20},[A-Za-z0-9]{1,20}$")
    """Base and quote of accounts whose map names no `trading_pair`."""
    snapshot_timeout_sec: float = Field(default=10, gt=0, le=120)
    """Of one request, from its beginning to the last byte of the answer."""
    snapshot_attempts: int = Field(default=3, ge=1, le=10)
    """How often a request is sent while the exchange is away, slow or busy."""
    snapshot_look_sec: float = Field(default=60, gt=0, le=3600)
    """Of one look at all accounts; who was not reached by then is `timeout`, and the others' figures are written."""
    snapshot_base_url: AnyHttpUrl | None = None
    """Instead of Bitget's own address."""

    @field_validator("snapshot_base_url")
    @classmethod
    def _keeps_the_key_secret(cls, value: AnyHttpUrl | None) -> AnyHttpUrl | None:
        if value is not None and value.scheme != "https" and value.host not in LOOPBACK:
            msg = "must be https, because keys are sent to it"
            raise ValueError(msg)
        return value

    @property
    def default_pair(self) -> str:
        """Return the pair of accounts that name none, as `BTC-USDT`."""
        return self.snapshot_assets.upper().replace(",", "-")
