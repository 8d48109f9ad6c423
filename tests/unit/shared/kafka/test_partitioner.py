"""The partition of a key is a contract: these vectors must never change."""

import pytest

from shared.kafka.partitioner import by_crc32, partition_of


@pytest.mark.parametrize(
    ("key", "partitions", "expected"),
    [
        # CRC-32's published check value: 0xCBF43926 = 3,421,780,262
        (b"123456789", 1_000, 262),
        (b"123456789", 12, 3_421_780_262 % 12),
        (b"", 12, 0),
        (b"anything", 1, 0),
        # 0xE8B7BE43, from the same polynomial; above 2^31, so a signed reading would differ
        (b"a", 12, 0xE8B7BE43 % 12),
    ],
)
def test_known_vectors(key: bytes, partitions: int, expected: int):
    assert partition_of(key, partitions) == expected


def test_keys_spread_over_all_partitions():
    counts = [0] * 12
    for number in range(12_000):
        counts[partition_of(f"acme/billing.payments/pay_{number}".encode(), 12)] += 1

    assert min(counts) > 800
    assert max(counts) < 1_200


def test_client_form_agrees_whatever_order_the_broker_names():
    for number in range(50):
        key = str(number).encode()
        assert by_crc32(key, [3, 0, 2, 1], [0]) == partition_of(key, 4)


def test_a_record_without_key_goes_where_a_leader_is():
    assert {by_crc32(None, [0, 1, 2], [1, 2]) for _ in range(100)} == {1, 2}
    assert by_crc32(None, [5], []) == 5
