"""How to reach Kafka: read from `TIEOUT_KAFKA_*`, the same for every service."""

import ssl
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


class KafkaSettings(BaseSettings):
    """Address, security and naming of the Kafka cluster.

    Raises `pydantic.ValidationError` on contradictory settings; its text never holds the password.
    """

    model_config = SettingsConfigDict(
        env_prefix="TIEOUT_KAFKA_",
        env_ignore_empty=True,  # compose files pass unset variables on as empty ones
        extra="ignore",
        hide_input_in_errors=True,
    )

    bootstrap_servers: str = Field(default="127.0.0.1:9092", min_length=1, description="comma-separated HOST:PORT")
    security_protocol: SecurityProtocol = "PLAINTEXT"
    """Without or with TLS, without or with a user."""
    sasl_mechanism: SaslMechanism = "PLAIN"
    """How the user proves to be one."""
    sasl_username: str | None = None
    """The user, for SASL."""
    sasl_password: SecretStr | None = None
    """The user's password; better in the file below."""
    sasl_password_file: Path | None = Field(
        default=None, description="a file whose content is the password, instead of sasl_password"
    )
    ssl_cafile: Path | None = Field(
        default=None, description="PEM with the authorities to trust; default: the system's"
    )
    ssl_certfile: Path | None = Field(default=None, description="PEM with the client's certificate chain")
    ssl_keyfile: Path | None = Field(default=None, description="PEM with the client's private key")
    client_id: str = Field(default="tieout", min_length=1)
    """Name of these clients in the broker's logs and quotas."""
    topic_prefix: str = Field(default="tieout.", pattern=r"^[a-zA-Z0-9._-]{0,100}$")
    """Before the name of every topic; several installations on one cluster have different ones."""
    request_timeout_ms: int = Field(default=15_000, ge=1_000, le=300_000)
    """A leader that moves is back within this time; shorter would fail sends that only had to wait."""
    transaction_timeout_ms: int = Field(default=30_000, ge=1_000, le=900_000)
    """A predecessor's open transaction blocks readers for this long when nobody fences it."""
    connect_timeout_s: float = Field(default=30.0, gt=0)
    """How long a start waits for the first answer of a broker before it gives up."""
    check_crcs: bool = True
    """Checksums of what is read. Off only with the embedded broker, whose transaction markers carry none."""

    @classmethod
    def local(cls, bootstrap_servers: str, *, check_crcs: bool = True, **values: str) -> Self:
        """For a broker that we started ourselves: plain, whatever security the environment asks for elsewhere."""
        plain: dict[str, Any] = dict.fromkeys(
            (
                "sasl_username",
                "sasl_password",
                "sasl_password_file",
                "ssl_cafile",
                "ssl_certfile",
                "ssl_keyfile",
            )
        )
        return cls(
            bootstrap_servers=bootstrap_servers,
            security_protocol="PLAINTEXT",
            check_crcs=check_crcs,
            **plain | values,
        )

    @property
    def uses_sasl(self) -> bool:
        return self.security_protocol in ("SASL_PLAINTEXT", "SASL_SSL")

    @property
    def uses_tls(self) -> bool:
        return self.security_protocol in ("SSL", "SASL_SSL")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.sasl_password is not None and self.sasl_password_file is not None:
            raise ValueError("give sasl_password or sasl_password_file, not both")
        has_password = self.sasl_password is not None or self.sasl_password_file is not None
        if self.uses_sasl and not (self.sasl_username and has_password):
            raise ValueError(
                f"security_protocol {self.security_protocol} needs sasl_username and sasl_password or "
                "sasl_password_file"
            )
        if not self.uses_sasl and (self.sasl_username or has_password):
            raise ValueError(
                f"a SASL user is given but security_protocol is {self.security_protocol}: "
                "set it to SASL_SSL or SASL_PLAINTEXT"
            )
        if not self.uses_tls and (self.ssl_cafile or self.ssl_certfile or self.ssl_keyfile):
            raise ValueError(
                f"TLS files are given but security_protocol is {self.security_protocol}: set it to SSL or SASL_SSL"
            )
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            raise ValueError("ssl_keyfile is given without ssl_certfile")
        return self

    def password(self) -> str | None:
        """The SASL password in clear, read anew from its file so that rotation needs no restart.

        Raises `ValueError` naming the file when it cannot be read or is empty.
        """
        if self.sasl_password is not None:
            return self.sasl_password.get_secret_value()
        if self.sasl_password_file is None:
            return None
        try:
            password = self.sasl_password_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise ValueError(f"sasl_password_file {self.sasl_password_file}: {reason}") from None
        if not password:
            raise ValueError(f"sasl_password_file {self.sasl_password_file} is empty")
        return password

    def ssl_context(self) -> ssl.SSLContext | None:
        """A context that checks the broker's certificate and host name; None without TLS.

        Raises `ValueError` naming the files when they cannot be loaded.
        """
        if not self.uses_tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ssl_cafile)
        except (OSError, ssl.SSLError) as error:
            raise ValueError(f"ssl_cafile {self.ssl_cafile} cannot be loaded: {error}") from error
        if self.ssl_certfile is None:
            return context
        try:
            context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile)
        except (OSError, ssl.SSLError) as error:
            raise ValueError(
                f"ssl_certfile {self.ssl_certfile} with ssl_keyfile {self.ssl_keyfile or 'none'} "
                f"cannot be loaded: {error}"
            ) from error
        return context
