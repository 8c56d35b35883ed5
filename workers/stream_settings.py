"""The settings of the streams, read once from the environment (and `.env` in development)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from outgoing import InternalHosts, OutgoingUrl
from workers.settings import read


class StreamSettings(BaseSettings):
    """What producers and consumers need to know beside `WorkerSettings`."""

    model_config = SettingsConfigDict(
        env_prefix="INSIGHT_", env_file=".env", extra="ignore", frozen=True, str_strip_whitespace=True
    )

    kafka_bootstrap_servers: str | None = Field(
        None, description="`host:port`, several with commas; without, files are replayed and nothing else is streamed."
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How to speak to Kafka; in clear text, as it is on this machine or behind a proxy."
    )
    kafka_ssl_ca_file: Path | None = Field(None, description="Authorities that sign the brokers; the system's own.")
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="How to sign in; the one that never sends the password."
    )
    kafka_sasl_username: str | None = Field(None, description="Who signs in.")
    kafka_sasl_password: SecretStr | None = Field(None, description="The password of that user.")
    kafka_topic_prefix: str = Field("", pattern=r"^[a-zA-Z0-9._-]*$", description="In front of every topic's name.")
    kafka_group: str = Field(
        "insight", pattern=r"^[a-zA-Z0-9._-]+$", description="Group of the consumers; one for each warehouse."
    )
    kafka_partitions: int = Field(6, ge=1, description="Partitions of topics that are made: six consumers at most.")
    kafka_replicas: int = Field(1, ge=1, description="Replicas of topics that are made; a cluster should have three.")
    kafka_session_timeout_ms: int = Field(
        6_000, ge=1_000, description="Without a sign of life a consumer's partitions go to others after that."
    )
    kafka_metadata_max_age_ms: int = Field(
        60_000, ge=500, description="Partitions that are added are found after that at the latest."
    )

    stream_batch_rows: int = Field(
        20_000, ge=1, description="Messages in one transaction at most: some 20 MB in memory."
    )
    stream_linger_ms: int = Field(
        500, ge=0, description="A batch that is not full waits so long for more; each transaction costs 20 ms."
    )
    stream_lock_timeout_s: float = Field(
        10,
        gt=0,
        description="One attempt at a warehouse that is taken; then the consumer says that it waits, and tries again.",
    )
    stream_stop_grace_s: float = Field(
        20, gt=0, description="To finish the batch in hand when stopped; within the 30 s that Kubernetes gives."
    )
    log_level: Literal["debug", "info", "warning"] = Field(
        "info", description="The least that is logged; libraries that show what they send stay at warnings."
    )
    stream_host: str = Field("127.0.0.1", description="Where health and metrics are served.")
    stream_port: int = Field(0, ge=0, le=65_535, description="Port of health and metrics; 0 turns them off.")
    stream_state_file: Path = Field(
        Path(".insight/producers.db"),
        description="What producers remember: requests made, and what was sent; SQLite, shared by those of a machine.",
    )
    internal_hosts: InternalHosts = Field(
        (), description="Hosts that may be internal and unencrypted where a setting names one to be asked."
    )
    coingecko_url: OutgoingUrl = Field(
        "https://api.coingecko.com/api/v3", description="Where CoinGecko is; the free plan's."
    )
    coingecko_api_key: SecretStr | None = Field(None, description="Key of the demo plan; without, fewer requests.")
    coingecko_every_s: float = Field(
        300, ge=1, description="Between two prices: 8,928 of the 10,000 requests a month of the free plan."
    )
    coingecko_per_minute: int = Field(30, ge=1, description="Requests a minute that the plan allows.")
    coingecko_per_month: int = Field(10_000, ge=1, description="Requests in 31 days that the plan allows.")
    newsapi_url: OutgoingUrl = Field("https://newsapi.org", description="Where NewsAPI is.")
    newsapi_api_key: SecretStr | None = Field(None, description="Key of NewsAPI; it answers nobody without one.")
    newsapi_country: str = Field("us", pattern="^[a-z]{2}$", description="Whose headlines.")
    newsapi_categories: str = Field(
        "business,technology,general", pattern="^[a-z]+(,[a-z]+)*$", description="Asked one after another."
    )
    newsapi_every_s: float = Field(
        1_200, ge=1, description="Between two requests: 72 of the 100 a day of the developer plan."
    )
    newsapi_per_half_day: int = Field(50, ge=1, description="Requests in 12 hours that the plan allows.")
    shopify_secret: SecretStr | None = Field(
        None, description="Signs Shopify's webhooks; without, they are not served."
    )
    woocommerce_secret: SecretStr | None = Field(None, description="Signs WooCommerce's; without, they are not served.")
    webhook_host: str = Field("127.0.0.1", description="Where webhooks are served; loopback, behind a proxy with TLS.")
    webhook_port: int = Field(8_080, ge=1, le=65_535, description="Port of the webhooks.")
    stream_refresh_s: float = Field(
        15,
        ge=1,
        description="Between two looks of `stream run` for new events: an answer shows an event within a minute.",
    )


def read_stream_settings() -> StreamSettings:
    """The settings of this process.

    Raises
    ------
    SettingError
        A value is wrong; the message names its variable.
    """
    return read(StreamSettings)
